package kubernetes

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

// TestActAs: client-go takes the file for the administrator's, who acts as another.
func TestActAs(t *testing.T) {
	ca, err := newAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	admin, err := ca.kubeconfig(netip.MustParseAddrPort("10.0.0.1:6443"), identity{user: "admin"})
	if err != nil {
		t.Fatal(err)
	}
	const account = "system:serviceaccount:kube-system:fairway-agent"
	text, err := ActAs(admin, account)
	if err != nil {
		t.Fatal(err)
	}
	conf, err := clientcmd.RESTConfigFromKubeConfig(text)
	if err != nil {
		t.Fatal(err)
	}
	if conf.Impersonate.UserName != account || conf.Host != "https://10.0.0.1:6443" || len(conf.CertData) == 0 {
		t.Errorf("acts as %q at %s with a certificate of %d bytes", conf.Impersonate.UserName, conf.Host, len(conf.CertData))
	}
	for _, bad := range []string{"", "[]", "{}", `{"users": [1]}`, `{"users": [{"name": "a"}]}`} {
		if text, err := ActAs([]byte(bad), account); err == nil {
			t.Errorf("%q becomes %s", bad, text)
		}
	}
}

// TestWhenThere: the command is run once the file has something, with its arguments
// as they are.
func TestWhenThere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a file")
	argv := WhenThere(file, "printf", "<%s>", "a b", "$c")
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	var out strings.Builder
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || out.String() != "<a b><$c>" {
		t.Errorf("%q, %v", out.String(), err)
	}
}
