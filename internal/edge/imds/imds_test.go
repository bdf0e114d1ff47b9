package imds

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/vpc"
)

const (
	docPath = "/latest/dynamic/instance-identity/document"
	macPath = "/latest/meta-data/mac"
	eniPath = "/latest/meta-data/network/interfaces/macs/02:00:00:00:00:01/"
)

// items is what a healthy instance answers.
func items() map[string]string {
	return map[string]string{
		docPath: `{"accountId":"123456789012","availabilityZone":"eu-west-1a","instanceId":"i-0abc",
			"instanceType":"m5.large","region":"eu-west-1","unknownField":[1]}`,
		macPath:                            "02:00:00:00:00:01",
		eniPath + "subnet-id":              "subnet-1",
		eniPath + "vpc-id":                 "vpc-1",
		eniPath + "security-group-ids":     "sg-1\nsg-2",
		eniPath + "vpc-ipv4-cidr-blocks":   "10.0.0.0/16\n100.64.0.0/10",
		eniPath + "subnet-ipv4-cidr-block": "10.0.1.0/24",
	}
}

// serve is an IMDSv2 with the items; it refuses a request without its token.
func serve(t *testing.T, items map[string]string) *Client {
	return handle(t, func(w http.ResponseWriter, r *http.Request) {
		const token = "secret"
		if r.URL.Path == "/latest/api/token" {
			w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds"))
			fmt.Fprint(w, token)
			return
		}
		item, ok := items[r.URL.Path]
		switch {
		case r.Header.Get("X-Aws-Ec2-Metadata-Token") != token:
			w.WriteHeader(http.StatusUnauthorized)
		case !ok:
			http.NotFound(w, r)
		default:
			fmt.Fprint(w, item)
		}
	})
}

func handle(t *testing.T, h http.HandlerFunc) *Client {
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return client(srv.URL)
}

// endpoint is where the SDK's configuration says that IMDS is.
type endpoint string

func (e endpoint) GetEC2IMDSEndpoint() (string, bool, error) { return string(e), true, nil }

// client is New without pauses between the attempts.
func client(url string) *Client {
	return newClient(aws.Config{ConfigSources: []any{endpoint(url)}}, func(o *imds.Options) {
		o.DisableDefaultMaxBackoff = true
		o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) {
			o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
		})
	})
}

func TestIdentity(t *testing.T) {
	got, err := serve(t, items()).Identity(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := Identity{
		InstanceID: "i-0abc", InstanceType: "m5.large", Region: "eu-west-1", AZ: "eu-west-1a", AccountID: "123456789012",
		MAC: vpc.MAC{2, 0, 0, 0, 0, 1}, SubnetID: "subnet-1", VPCID: "vpc-1", Groups: []string{"sg-1", "sg-2"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("identity (-want +got):\n%s", d)
	}
}

func TestVPCPrefixes(t *testing.T) {
	got, err := serve(t, items()).VPCPrefixes(t.Context(), vpc.MAC{2, 0, 0, 0, 0, 1})
	if err != nil {
		t.Fatal(err)
	}
	want := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("100.64.0.0/10")}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{})); d != "" {
		t.Errorf("prefixes (-want +got):\n%s", d)
	}
}

func TestBadAnswers(t *testing.T) {
	html := "<html>" + strings.Repeat("x", 200) + "</html>"
	cases := []struct {
		name, path, answer string // the empty answer is a 404
		want               string
		is                 error
	}{
		{"no document", docPath, "", "instance-identity/document", ErrNotFound},
		{"document garbled", docPath, html, "dynamic/instance-identity/document: not understood", nil},
		{"document empty", docPath, "{}", `metadata has instance id "", which is none`, nil},
		{"document of something else", docPath, `{"instanceId":"vm-1","instanceType":"m5.large","region":"r","availabilityZone":"z"}`,
			`instance id "vm-1"`, nil},
		{"no mac", macPath, "", "mac", ErrNotFound},
		{"mac garbled", macPath, "<html>", "item mac: parse mac", nil},
		{"another mac", macPath, "02:00:00:00:00:99", "02:00:00:00:00:99/subnet-id", ErrNotFound},
		{"no subnet", eniPath + "subnet-id", "", "subnet-id", ErrNotFound},
		{"subnet garbled", eniPath + "subnet-id", html, `subnet id "<html>xxx`, nil},
		{"no vpc", eniPath + "vpc-id", "", "vpc-id", ErrNotFound},
		{"no groups", eniPath + "security-group-ids", "", "security-group-ids", ErrNotFound},
		{"empty groups", eniPath + "security-group-ids", "\n", "no security group", nil},
		{"groups garbled", eniPath + "security-group-ids", "sg-1\n{}", `security group id "{}"`, nil},
		{"huge", eniPath + "vpc-id", strings.Repeat("v", maxText+1), "vpc-id: more than 16384 bytes", nil},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			all := items()
			all[tc.path] = tc.answer
			if tc.answer == "" {
				delete(all, tc.path)
			}
			id, err := serve(t, all).Identity(t.Context())
			if err == nil {
				t.Fatalf("no error; identity %+v", id)
			}
			if !strings.Contains(err.Error(), tc.want) || len(err.Error()) > 500 {
				t.Errorf("error %q, want %q in it", err, tc.want)
			}
			if tc.is != nil && !errors.Is(err, tc.is) || errors.Is(err, ErrUnavailable) {
				t.Errorf("error %v is of the wrong class", err)
			}
		})
	}
	for answer, want := range map[string]string{
		"":              "no such item",
		"\n":            "no VPC CIDR block",
		"10.0.0.0":      `block "10.0.0.0", which is none`,
		"2001:db8::/32": `block "2001:db8::/32", which is none`,
		html:            "which is none",
	} {
		all := items()
		all[eniPath+"vpc-ipv4-cidr-blocks"] = answer
		if answer == "" {
			delete(all, eniPath+"vpc-ipv4-cidr-blocks")
		}
		_, err := serve(t, all).VPCPrefixes(t.Context(), vpc.MAC{2, 0, 0, 0, 0, 1})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("VPC prefixes of %.30q: %v, want %q", answer, err, want)
		}
	}
}

// closedPort is an address where nobody listens, and where nobody can while the test runs:
// a port that is merely free may be another's in a moment, or the client's own.
func closedPort(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", at.(*unix.SockaddrInet4).Port)
}

func TestUnavailable(t *testing.T) {
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	cases := []struct {
		name   string
		client func(t *testing.T) *Client
		want   string
	}{
		{"closed port", func(t *testing.T) *Client { return client("http://" + closedPort(t)) }, "hop limit"},
		{"no answer", func(t *testing.T) *Client {
			l, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, nobody answers
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			return client("http://" + l.Addr().String())
		}, "hop limit"},
		{"turned off", func(t *testing.T) *Client { return handle(t, status(403)) }, "--http-endpoint enabled"},
		{"no token service", func(t *testing.T) *Client { return handle(t, status(404)) }, "token got status 404"},
		{"bad token request", func(t *testing.T) *Client { return handle(t, status(400)) }, "token got status 400"},
		{"in trouble", func(t *testing.T) *Client { return handle(t, status(503)) }, "status 503"},
		{"version 1 only", func(t *testing.T) *Client {
			all := items()
			return handle(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPut {
					w.WriteHeader(http.StatusMethodNotAllowed)
					return
				}
				fmt.Fprint(w, all[r.URL.Path])
			})
		}, "token got status 405"},
		{"trouble with an item", func(t *testing.T) *Client {
			return handle(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPut {
					w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "60")
					fmt.Fprint(w, "secret")
					return
				}
				w.WriteHeader(http.StatusInternalServerError)
			})
		}, "dynamic/instance-identity/document got status 500"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			_, err := tc.client(t).Identity(t.Context())
			if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want ErrUnavailable with %q", err, tc.want)
			}
		})
	}
}

// TestContext ends a call that the server never answers.
func TestContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := handle(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	_, err := c.Identity(ctx)
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnavailable) {
		t.Errorf("cancelled: %v, want context.Canceled and not ErrUnavailable", err)
	}
	ctx, cancel = context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	if _, err := c.Identity(ctx); !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("past its deadline: %v, want ErrUnavailable and DeadlineExceeded", err)
	}
}

func FuzzParsePrefixes(f *testing.F) {
	for _, s := range []string{"", "10.0.0.0/16", "10.0.0.0/16\n100.64.0.0/10\n", "::/0", "10.0.0.0/33", "10.1.2.3/8", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		prefixes, err := parsePrefixes(s)
		if err == nil && len(prefixes) == 0 {
			t.Fatal("neither prefixes nor an error")
		}
		for _, p := range prefixes {
			if !p.Addr().Is4() || p != p.Masked() {
				t.Fatalf("prefix %s", p)
			}
		}
	})
}
