package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Errand is a command that reads a node: a pod is bound to the node, runs it once in
// the node's namespaces, and is deleted. Nobody but the API server is asked, so that
// its authorisation and audit hold.
//
//	POST pods -> GET pods/NAME until it has ended -> GET pods/NAME/log -> DELETE pods/NAME
type Errand struct {
	Node      string
	Namespace string // of the pod
	Image     Image  // has the command
	Command   []string
}

// Image is a container image, and what a private registry wants.
type Image struct {
	Name        string
	PullSecrets []string // names of Secrets of the namespace
}

// NodeRoot is where an errand's container has the node's root directory, to read.
const NodeRoot = "/host"

const (
	// errandTime is for how long its pod may live: an image may have to be pulled first.
	errandTime = 2 * time.Minute
	// errandPoll is between two looks at its pod.
	errandPoll = 500 * time.Millisecond
	// partingTime is for deleting the pod, whatever has become of the context.
	partingTime = 10 * time.Second
)

// errandCapabilities are those of the container, each for one thing to read.
var errandCapabilities = []string{
	"SYS_ADMIN",       // entering the network namespaces of pods
	"SYS_PTRACE",      // opening those that only a process has
	"NET_ADMIN",       // nftables, and the programs at devices
	"SYS_CHROOT",      // the node's own nft and iptables-save
	"DAC_READ_SEARCH", // what runtimes keep of CNI results
}

// Do runs the errand, and gives what the command printed. An error says what became of the
// pod where it did not succeed. The pod is gone when Do returns, unless the error
// says that it could not be deleted.
func (e Errand) Do(ctx context.Context, cfg Config) (out []byte, err error) {
	c, err := newCaller(cfg)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, errandTime)
	defer cancel()
	pods := "/api/v1/namespaces/" + url.PathEscape(e.Namespace) + "/pods"
	var made errandPod
	if err := c.call(ctx, request{method: http.MethodPost, path: pods, body: e.pod()}, &made); err != nil {
		return nil, fmt.Errorf("create a pod on node %s: %w", e.Node, err)
	}
	at := pods + "/" + made.Metadata.Name
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), partingTime)
		defer cancel()
		now := map[string]any{"gracePeriodSeconds": 0, "preconditions": map[string]any{"uid": made.Metadata.UID}}
		gone := c.call(ctx, request{method: http.MethodDelete, path: at, body: now}, nil)
		if gone != nil && !errors.Is(gone, errNotFound) {
			err = errors.Join(err, fmt.Errorf("delete pod %s/%s, which ends by itself: %w", e.Namespace, made.Metadata.Name, gone))
		}
	}()
	over, err := c.ended(ctx, at)
	if err != nil {
		return nil, fmt.Errorf("pod %s/%s on node %s: %w", e.Namespace, made.Metadata.Name, e.Node, err)
	}
	if err := c.call(ctx, request{path: at + "/log", query: url.Values{"limitBytes": {strconv.Itoa(maxPage)}}}, &out); err != nil {
		return nil, fmt.Errorf("log of pod %s/%s on node %s: %w", e.Namespace, made.Metadata.Name, e.Node, err)
	}
	if over.Status.Phase != "Succeeded" {
		return nil, fmt.Errorf("pod %s/%s on node %s: %s", e.Namespace, made.Metadata.Name, e.Node, over.why(out))
	}
	return out, nil
}

// ended waits until the pod has ended, or cannot begin.
func (c caller) ended(ctx context.Context, at string) (p errandPod, err error) {
	for {
		p = errandPod{}
		if err := c.call(ctx, request{path: at}, &p); err != nil {
			return p, cmp.Or(context.Cause(ctx), err)
		}
		if p.Status.Phase == "Succeeded" || p.Status.Phase == "Failed" {
			return p, nil
		}
		if why := p.stuck(); why != "" {
			return p, errors.New(why)
		}
		select {
		case <-ctx.Done():
			return p, fmt.Errorf("%w while it was %s", context.Cause(ctx), cmp.Or(p.waiting(), p.Status.Phase))
		case <-time.After(errandPoll):
		}
	}
}

// errandPod is what is read of the pod.
type errandPod struct {
	Metadata struct {
		Name string `json:"name"`
		UID  string `json:"uid"`
	} `json:"metadata"`
	Status struct {
		Phase      string `json:"phase"`
		Reason     string `json:"reason"`
		Message    string `json:"message"`
		Containers []struct {
			State struct {
				Waiting    *errandState `json:"waiting"`
				Terminated *errandState `json:"terminated"`
			} `json:"state"`
		} `json:"containerStatuses"`
	} `json:"status"`
}

type errandState struct {
	Reason   string `json:"reason"`
	Message  string `json:"message"`
	ExitCode int    `json:"exitCode"`
}

func (p *errandPod) waiting() string {
	for _, c := range p.Status.Containers {
		if w := c.State.Waiting; w != nil {
			return strings.Trim(w.Reason+": "+w.Message, ": ")
		}
	}
	return ""
}

// stuck says why the container will not start; kubelet would try for ever.
func (p *errandPod) stuck() string {
	why := p.waiting()
	for _, reason := range []string{"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError", "RunContainerError"} {
		if strings.HasPrefix(why, reason) {
			return why
		}
	}
	return ""
}

// why it failed: the last line that it printed says it best.
func (p *errandPod) why(log []byte) string {
	const most = 500 // bytes
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	last := lines[len(lines)-1]
	text := strings.Trim(p.Status.Reason+": "+p.Status.Message, ": ")
	for _, c := range p.Status.Containers {
		if t := c.State.Terminated; t != nil && text == "" {
			text = fmt.Sprintf("exit status %d", t.ExitCode)
		}
	}
	return strings.Trim(text+": "+last[:min(len(last), most)], ": ")
}

// pod is what is created. It tolerates every taint, as nobody schedules it, and has no
// service account's token.
func (e Errand) pod() any {
	type object = map[string]any
	secrets := []object{}
	for _, name := range e.Image.PullSecrets {
		secrets = append(secrets, object{"name": name})
	}
	return object{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": object{"generateName": "fairway-bundle-", "labels": object{"app.kubernetes.io/name": "fairway-bundle"}},
		"spec": object{
			"nodeName": e.Node, "hostNetwork": true, "hostPID": true, "restartPolicy": "Never", "dnsPolicy": "Default",
			"activeDeadlineSeconds": int(errandTime.Seconds()), "terminationGracePeriodSeconds": 1,
			"automountServiceAccountToken": false, "enableServiceLinks": false,
			"tolerations": []object{{"operator": "Exists"}}, "imagePullSecrets": secrets,
			"volumes": []object{{"name": "node", "hostPath": object{"path": "/", "type": "Directory"}}},
			"containers": []object{{
				"name": "read", "image": e.Image.Name, "imagePullPolicy": "IfNotPresent", "command": e.Command,
				"resources": object{"requests": object{"cpu": "10m", "memory": "64Mi"}, "limits": object{"memory": "1Gi"}},
				"securityContext": object{
					"runAsUser": 0, "readOnlyRootFilesystem": true,
					"capabilities":    object{"drop": []string{"ALL"}, "add": errandCapabilities},
					"appArmorProfile": object{"type": "Unconfined"}, // else no other process's namespace is to be seen
					"seccompProfile":  object{"type": "RuntimeDefault"},
				},
				"volumeMounts": []object{{"name": "node", "mountPath": NodeRoot, "readOnly": true, "mountPropagation": "HostToContainer"}},
			}},
		},
	}
}

// AgentImage is the image of Fairway's own agents in a namespace. It has no name where
// there are none, or nobody may see them.
func AgentImage(ctx context.Context, cfg Config, namespace string) Image {
	c, err := newCaller(cfg)
	if err != nil {
		return Image{}
	}
	var set struct {
		Spec struct {
			Template struct {
				Spec struct {
					PullSecrets []struct {
						Name string `json:"name"`
					} `json:"imagePullSecrets"`
					Containers []struct {
						Name  string `json:"name"`
						Image string `json:"image"`
					} `json:"containers"`
				} `json:"spec"`
			} `json:"template"`
		} `json:"spec"`
	}
	if c.call(ctx, request{path: "/apis/apps/v1/namespaces/" + url.PathEscape(namespace) + "/daemonsets/fairway-agent"}, &set) != nil {
		return Image{}
	}
	var image Image
	for _, k := range set.Spec.Template.Spec.Containers {
		if k.Name == "agent" {
			image.Name = k.Image
		}
	}
	for _, s := range set.Spec.Template.Spec.PullSecrets {
		image.PullSecrets = append(image.PullSecrets, s.Name)
	}
	return image
}
