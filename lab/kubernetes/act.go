package kubernetes

import (
	"encoding/json"
	"errors"
	"fmt"
)

// ActAs is a kubeconfig by which the administrator, whose own is conf, acts as another
// user: it has that user's rights and no others. A service account is the user
// system:serviceaccount:NAMESPACE:NAME, and has its groups then, too. Source: "User
// impersonation" in the documentation of Kubernetes.
//
// Unlike a token it is valid in the next cluster also, which a boot of the control
// plane makes.
func ActAs(conf []byte, user string) ([]byte, error) {
	var all map[string]any
	if err := json.Unmarshal(conf, &all); err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	users, _ := all["users"].([]any)
	for _, u := range users {
		entry, _ := u.(map[string]any)
		fields, ok := entry["user"].(map[string]any)
		if !ok {
			return nil, errors.New("read kubeconfig: a user is no object")
		}
		fields["as"] = user
	}
	if len(users) == 0 {
		return nil, errors.New("read kubeconfig: it has no user")
	}
	return json.MarshalIndent(all, "", "  ")
}

// WhenThere is a command that waits until a file is there and not empty, and then
// becomes argv. The daemons of a world start before their cluster does; one that
// needs a kubeconfig starts with this.
func WhenThere(file string, argv ...string) []string {
	return append([]string{"sh", "-c", `until [ -s "$0" ]; do sleep 0.1; done; exec "$@"`, file}, argv...)
}
