package kubernetes

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairway-cni/fairway/lab/world"
)

func testAuthority(t *testing.T) *authority {
	t.Helper()
	a, err := newAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestCertificates(t *testing.T) {
	a, other := testAuthority(t), testAuthority(t)
	addr := netip.MustParseAddr("10.0.1.4")
	p, err := a.issue(identity{user: "system:node:n", groups: []string{"system:nodes"}, names: []string{"n"}, addrs: []netip.Addr{addr}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tls.X509KeyPair(p.cert, p.key); err != nil {
		t.Errorf("key and certificate: %v", err)
	}
	block, _ := pem.Decode(p.cert)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if cert.Subject.CommonName != "system:node:n" || !cmp.Equal(cert.Subject.Organization, []string{"system:nodes"}) {
		t.Errorf("it is for %s", cert.Subject)
	}
	for _, c := range []struct {
		who   *authority
		name  string
		usage x509.ExtKeyUsage
		ok    bool
	}{
		{a, "10.0.1.4", x509.ExtKeyUsageServerAuth, true},
		{a, "n", x509.ExtKeyUsageServerAuth, true},
		{a, "", x509.ExtKeyUsageClientAuth, true},
		{a, "10.0.1.5", x509.ExtKeyUsageServerAuth, false},
		{other, "10.0.1.4", x509.ExtKeyUsageServerAuth, false},
		{a, "", x509.ExtKeyUsageCodeSigning, false},
	} {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(c.who.pair.cert)
		_, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: c.name, KeyUsages: []x509.ExtKeyUsage{c.usage}})
		if (err == nil) != c.ok {
			t.Errorf("verify for %q, usage %v: %v", c.name, c.usage, err)
		}
	}
}

func TestKubeconfig(t *testing.T) {
	a := testAuthority(t)
	text, err := a.kubeconfig(netip.MustParseAddrPort("10.0.1.5:6443"), identity{user: "admin", groups: []string{"system:masters"}})
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Clusters []struct {
			Cluster struct {
				Server string
				CA     []byte `json:"certificate-authority-data"`
			}
		}
		Users []struct {
			User struct {
				Cert []byte `json:"client-certificate-data"`
				Key  []byte `json:"client-key-data"`
			}
		}
	}
	if err := json.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	if got := c.Clusters[0].Cluster; got.Server != "https://10.0.1.5:6443" || string(got.CA) != string(a.pair.cert) {
		t.Errorf("cluster is %+v", got)
	}
	if _, err := tls.X509KeyPair(c.Users[0].User.Cert, c.Users[0].User.Key); err != nil {
		t.Error(err)
	}
}

func TestServiceRange(t *testing.T) {
	for _, c := range []struct {
		vpcs string
		want string // empty: an error
	}{
		{"", "172.20.0.0/16"},
		{"10.0.0.0/16", "172.20.0.0/16"},
		{"10.0.0.0/16 172.20.128.0/17", "10.100.0.0/16"},
		{"172.16.0.0/12", "10.100.0.0/16"},
		{"172.16.0.0/12 10.100.0.0/24", ""},
	} {
		var vpcs []netip.Prefix
		for v := range strings.FieldsSeq(c.vpcs) {
			vpcs = append(vpcs, netip.MustParsePrefix(v))
		}
		got, err := serviceRange(vpcs)
		if c.want == "" {
			if !errors.Is(err, errNoRange) {
				t.Errorf("VPCs %s: %v, %v, want errNoRange", c.vpcs, got, err)
			}
			continue
		}
		if err != nil || got.String() != c.want {
			t.Errorf("VPCs %s: %v, %v, want %s", c.vpcs, got, err, c.want)
		}
	}
	if got := nth(netip.MustParsePrefix("172.20.0.0/16"), 10); got != netip.MustParseAddr("172.20.0.10") {
		t.Errorf("the tenth is %s", got)
	}
}

func TestNodeNames(t *testing.T) {
	for name, want := range map[string]string{
		"node-a": "node-a", "Web": "web", "": "i-01", "a b": "i-01", "-a": "i-01", "a.b": "i-01", strings.Repeat("a", 64): "i-01",
	} {
		if got := nodeOf(world.InstanceStatus{ID: "i-01", Name: name}).name; got != want {
			t.Errorf("an instance %q is node %q, want %q", name, got, want)
		}
	}
}

func TestWithControlPlane(t *testing.T) {
	w := world.Default()
	count := len(w.Instances)
	got, err := WithControlPlane(w)
	if err != nil {
		t.Fatal(err)
	}
	if len(w.Instances) != count {
		t.Error("the world that was given has changed")
	}
	added := got.Instances[count]
	if first := w.Instances[0]; added.Name != ControlPlane || added.Subnet != first.Subnet || added.VPC != first.VPC {
		t.Errorf("added %+v", added)
	}
	if err := got.Validate(); err != nil {
		t.Error(err)
	}
	if again, err := WithControlPlane(got); err != nil || len(again.Instances) != count+1 {
		t.Errorf("a world that has one: %d instances, %v; want %d", len(again.Instances), err, count+1)
	}
	if _, err := WithControlPlane(&world.World{}); err == nil {
		t.Error("a world without instances was taken")
	}
}

func TestProgramsCheck(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "images"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range append([]string{"images/pause.tar"}, needed...) {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := Programs(dir).Check(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "kubelet"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{"ctr", "images/pause.tar"} {
		if err := os.Remove(filepath.Join(dir, gone)); err != nil {
			t.Fatal(err)
		}
	}
	err := Programs(dir).Check()
	if !errors.Is(err, ErrPrograms) || !strings.HasSuffix(err.Error(), ": kubelet, ctr, images/*.tar") {
		t.Errorf("%v, want an ErrPrograms that names kubelet, ctr and images/*.tar", err)
	}
}
