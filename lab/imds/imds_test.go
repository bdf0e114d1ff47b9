package imds

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/google/go-cmp/cmp"
)

var launch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func example() Metadata {
	return Metadata{
		InstanceID: "i-0abc", InstanceType: "m5.large", Region: "us-west-2",
		AvailabilityZone: "us-west-2a", AvailabilityZoneID: "usw2-az1", AccountID: "123456789012",
		AMI: "ami-0123", LaunchTime: launch, LocalHostname: "ip-10-0-0-4.us-west-2.compute.internal",
		LocalIPv4: netip.MustParseAddr("10.0.0.4"), MAC: "02:00:00:00:00:04",
		Interfaces: []Interface{
			{
				MAC: "02:00:00:00:00:04", ID: "eni-1", LocalIPv4s: addrs("10.0.0.4", "10.0.0.9"),
				SubnetID: "subnet-1", SubnetCIDR: netip.MustParsePrefix("10.0.0.0/24"),
				VPCID: "vpc-1", VPCCIDRs: prefixes("10.0.0.0/16", "100.64.0.0/16"),
				SecurityGroupIDs: []string{"sg-1", "sg-2"}, SecurityGroups: []string{"node", "extra"},
				LocalHostname: "ip-10-0-0-4.us-west-2.compute.internal", OwnerID: "123456789012",
			},
			{
				MAC: "02:00:00:00:00:05", ID: "eni-2", DeviceNumber: 1, NetworkCard: 1,
				LocalIPv4s: addrs("10.0.0.5"), Prefixes: prefixes("10.0.0.16/28", "10.0.0.32/28"),
				SubnetID: "subnet-1", SubnetCIDR: netip.MustParsePrefix("10.0.0.0/24"),
				VPCID: "vpc-1", VPCCIDRs: prefixes("10.0.0.0/16", "100.64.0.0/16"),
				SecurityGroupIDs: []string{"sg-1"}, SecurityGroups: []string{"node"},
				LocalHostname: "ip-10-0-0-5.us-west-2.compute.internal", OwnerID: "123456789012",
			},
		},
		Tags: map[string]string{"Name": "node a", "no/slash": "x"},
		Credentials: &Credentials{
			Role: "node-role", AccessKeyID: "AKIDLAB", SecretAccessKey: "secret", Token: "session",
			LastUpdated: launch, Expiration: launch.Add(6 * time.Hour),
		},
	}
}

// world is what a test changes under a running service.
type world struct {
	mu      sync.Mutex
	m       Metadata
	present bool
	now     time.Time
}

func serve(t *testing.T) (*world, *httptest.Server) {
	w := &world{m: example(), present: true, now: launch}
	s := httptest.NewServer(New(
		func() (Metadata, bool) { w.mu.Lock(); defer w.mu.Unlock(); return w.m, w.present },
		func() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.now },
	))
	t.Cleanup(s.Close)
	return w, s
}

func (w *world) change(f func(*world)) { w.mu.Lock(); defer w.mu.Unlock(); f(w) }

type answered struct {
	Code   int
	Body   string
	Header http.Header
}

// do sends one request; headers are name, value pairs.
func do(t *testing.T, method, url string, headers ...string) answered {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answered{resp.StatusCode, string(body), resp.Header}
}

func token(t *testing.T, s *httptest.Server) string {
	t.Helper()
	a := do(t, "PUT", s.URL+tokenPath, ttlHeader, "21600")
	if a.Code != 200 {
		t.Fatalf("no token: %+v", a)
	}
	return a.Body
}

func TestPaths(t *testing.T) {
	_, s := serve(t)
	tok := token(t, s)
	const eni1, eni2 = "/latest/meta-data/network/interfaces/macs/02:00:00:00:00:04", "/latest/meta-data/network/interfaces/macs/02:00:00:00:00:05"
	tests := []struct {
		path, want string
		code       int // 0: 200
	}{
		{path: "/", want: strings.Join(versions, "\n")},
		{path: "/latest", want: "dynamic\nmeta-data"},
		{path: "/latest/", want: "dynamic\nmeta-data"},
		{path: "/2021-07-15/meta-data/instance-id", want: "i-0abc"},
		{path: "/1999-01-01/meta-data/instance-id", code: 404},
		{path: "/latest/meta-data", want: "ami-id\nami-launch-index\nhostname\niam/\ninstance-action\ninstance-id\ninstance-life-cycle\ninstance-type\nlocal-hostname\nlocal-ipv4\nmac\nnetwork/\nplacement/\nsecurity-groups\nservices/\ntags/"},
		{path: "/latest/meta-data/ami-id", want: "ami-0123"},
		{path: "/latest/meta-data/hostname", want: "ip-10-0-0-4.us-west-2.compute.internal"},
		{path: "/latest/meta-data/local-hostname", want: "ip-10-0-0-4.us-west-2.compute.internal"},
		{path: "/latest/meta-data/instance-type", want: "m5.large"},
		{path: "/latest/meta-data/local-ipv4", want: "10.0.0.4"},
		{path: "/latest/meta-data/mac", want: "02:00:00:00:00:04"},
		{path: "/latest/meta-data//mac", want: "02:00:00:00:00:04"},
		{path: "/latest/meta-data/mac/", code: 404},
		{path: "/latest/meta-data/mac/x", code: 404},
		{path: "/latest/meta-data/../meta-data/mac", code: 404},
		{path: "/latest/meta-data/ipv6", code: 404},
		{path: "/latest/meta-data/public-ipv4", code: 404},
		{path: "/latest/user-data", code: 404},
		{path: "/latest/meta-data/placement/", want: "availability-zone\navailability-zone-id\nregion"},
		{path: "/latest/meta-data/placement/availability-zone", want: "us-west-2a"},
		{path: "/latest/meta-data/placement/availability-zone-id", want: "usw2-az1"},
		{path: "/latest/meta-data/placement/region", want: "us-west-2"},
		{path: "/latest/meta-data/services/domain", want: "amazonaws.com"},
		{path: "/latest/meta-data/security-groups", want: "node\nextra"},
		{path: "/latest/meta-data/network/interfaces/macs", want: "02:00:00:00:00:04/\n02:00:00:00:00:05/"},
		{path: "/latest/meta-data/network/interfaces/macs/", want: "02:00:00:00:00:04/\n02:00:00:00:00:05/"},
		{path: "/latest/meta-data/network/interfaces/macs/02:00:00:00:00:06/", code: 404},
		{path: eni1, want: "device-number\ninterface-id\nlocal-hostname\nlocal-ipv4s\nmac\nowner-id\nsecurity-group-ids\nsecurity-groups\nsubnet-id\nsubnet-ipv4-cidr-block\nvpc-id\nvpc-ipv4-cidr-block\nvpc-ipv4-cidr-blocks"},
		{path: eni1 + "/device-number", want: "0"},
		{path: eni1 + "/network-card", code: 404},
		{path: eni1 + "/interface-id", want: "eni-1"},
		{path: eni1 + "/local-ipv4s", want: "10.0.0.4\n10.0.0.9"},
		{path: eni1 + "/ipv4-prefix", code: 404},
		{path: eni1 + "/owner-id", want: "123456789012"},
		{path: eni1 + "/security-group-ids", want: "sg-1\nsg-2"},
		{path: eni1 + "/subnet-id", want: "subnet-1"},
		{path: eni1 + "/subnet-ipv4-cidr-block", want: "10.0.0.0/24"},
		{path: eni1 + "/vpc-id", want: "vpc-1"},
		{path: eni1 + "/vpc-ipv4-cidr-block", want: "10.0.0.0/16"},
		{path: eni1 + "/vpc-ipv4-cidr-blocks", want: "10.0.0.0/16\n100.64.0.0/16"},
		{path: eni2 + "/device-number", want: "1"},
		{path: eni2 + "/network-card", want: "1"},
		{path: eni2 + "/ipv4-prefix", want: "10.0.0.16/28\n10.0.0.32/28"},
		{path: "/latest/meta-data/iam/", want: "info\nsecurity-credentials/"},
		{path: "/latest/meta-data/iam/security-credentials/", want: "node-role"},
		{path: "/latest/meta-data/iam/security-credentials/other", code: 404},
		{path: "/latest/meta-data/tags/", want: "instance/"},
		{path: "/latest/meta-data/tags/instance/", want: "Name"},
		{path: "/latest/meta-data/tags/instance/Name", want: "node a"},
		{path: "/latest/dynamic", want: "instance-identity/"},
		{path: "/latest/dynamic/instance-identity/", want: "document"},
	}
	for _, tt := range tests {
		t.Run(tt.path, func(t *testing.T) {
			a := do(t, "GET", s.URL+tt.path, tokenHeader, tok)
			if a.Header.Get("Server") != "EC2ws" {
				t.Errorf("server %q", a.Header.Get("Server"))
			}
			if tt.code != 0 {
				if a.Code != tt.code || !strings.Contains(a.Body, "<title>404 - Not Found</title>") {
					t.Errorf("got %d %q, want %d", a.Code, a.Body, tt.code)
				}
				return
			}
			if a.Code != 200 || a.Header.Get("Content-Type") != "text/plain" {
				t.Errorf("got %d, %s", a.Code, a.Header.Get("Content-Type"))
			}
			if diff := cmp.Diff(tt.want, a.Body); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Without a role and tags, their directories are absent; without interfaces,
// theirs is empty.
func TestBareInstance(t *testing.T) {
	w, s := serve(t)
	w.change(func(w *world) { w.m.Credentials, w.m.Tags, w.m.Interfaces = nil, nil, nil })
	tok := token(t, s)
	for _, path := range []string{"iam/", "iam/info", "iam/security-credentials/", "tags/instance/", "security-groups"} {
		if a := do(t, "GET", s.URL+"/latest/meta-data/"+path, tokenHeader, tok); a.Code != 404 {
			t.Errorf("%s: %d %q", path, a.Code, a.Body)
		}
	}
	if a := do(t, "GET", s.URL+"/latest/meta-data/network/interfaces/macs/", tokenHeader, tok); a.Code != 200 || a.Body != "" {
		t.Errorf("macs: %+v", a)
	}
}

func TestTokens(t *testing.T) {
	w, s := serve(t)
	puts := []struct {
		name    string
		path    string
		headers []string
		code    int
	}{
		{"shortest", tokenPath, []string{ttlHeader, "1"}, 200},
		{"longest", tokenPath, []string{"x-aws-ec2-metadata-token-ttl-seconds", "21600"}, 200},
		{"no ttl", tokenPath, nil, 400},
		{"ttl 0", tokenPath, []string{ttlHeader, "0"}, 400},
		{"ttl negative", tokenPath, []string{ttlHeader, "-1"}, 400},
		{"ttl too long", tokenPath, []string{ttlHeader, "21601"}, 400},
		{"ttl no number", tokenPath, []string{ttlHeader, "1h"}, 400},
		{"forwarded", tokenPath, []string{ttlHeader, "60", "X-Forwarded-For", "10.0.0.9"}, 403},
		{"forwarded, empty", tokenPath, []string{ttlHeader, "60", "X-Forwarded-For", ""}, 403},
		{"dated path", "/2021-07-15/api/token", []string{ttlHeader, "60"}, 403},
		{"other path", "/latest/meta-data/mac", []string{ttlHeader, "60"}, 403},
	}
	for _, tt := range puts {
		t.Run(tt.name, func(t *testing.T) {
			a := do(t, "PUT", s.URL+tt.path, tt.headers...)
			if a.Code != tt.code {
				t.Fatalf("got %d, want %d", a.Code, tt.code)
			}
			if a.Code == 200 && (len(a.Body) != 56 || a.Header.Get(ttlHeader) != tt.headers[1]) {
				t.Errorf("token %q, header %q", a.Body, a.Header.Get(ttlHeader))
			}
		})
	}
	_, other := serve(t)
	tok := do(t, "PUT", s.URL+tokenPath, ttlHeader, "60").Body
	if again := do(t, "PUT", s.URL+tokenPath, ttlHeader, "60").Body; again == tok {
		t.Error("two tokens are the same")
	}
	const path = "/latest/meta-data/mac"
	if a := do(t, "GET", s.URL+path, tokenHeader, tok); a.Code != 200 || a.Header.Get(ttlHeader) != "60" {
		t.Errorf("a good token: %+v", a)
	}
	flipped := []byte(tok)
	flipped[0] ^= 1
	for name, bad := range map[string]string{
		"none": "", "junk": "junk", "not base64": "!!!!", "of another instance": token(t, other),
		"changed": string(flipped), "cut": tok[:52], "longer": tok + "AAAA",
	} {
		if a := do(t, "GET", s.URL+path, tokenHeader, bad); a.Code != 401 {
			t.Errorf("token %s: got %d, want 401", name, a.Code)
		}
	}
	// The edge of its life: valid at 59.999 s, not at 60 s.
	w.change(func(w *world) { w.now = launch.Add(60*time.Second - time.Millisecond) })
	if a := do(t, "GET", s.URL+path, tokenHeader, tok); a.Code != 200 {
		t.Errorf("just before the end: %d", a.Code)
	}
	w.change(func(w *world) { w.now = launch.Add(60 * time.Second) })
	if a := do(t, "GET", s.URL+path, tokenHeader, tok); a.Code != 401 {
		t.Errorf("at the end: %d", a.Code)
	}
}

func TestMethods(t *testing.T) {
	_, s := serve(t)
	tok := token(t, s)
	const path = "/latest/meta-data/instance-id"
	for _, method := range []string{"POST", "DELETE", "PATCH", "OPTIONS"} {
		if a := do(t, method, s.URL+path, tokenHeader, tok); a.Code != 405 || a.Header.Get("Allow") != "GET, HEAD, PUT" {
			t.Errorf("%s: %+v", method, a)
		}
	}
	if a := do(t, "GET", s.URL+tokenPath, tokenHeader, tok); a.Code != 405 {
		t.Errorf("GET of the token: %d", a.Code)
	}
	if a := do(t, "HEAD", s.URL+path, tokenHeader, tok); a.Code != 200 || a.Body != "" || a.Header.Get("Content-Length") != "6" {
		t.Errorf("HEAD: %+v", a)
	}
}

func TestAbsent(t *testing.T) {
	w, s := serve(t)
	tok := token(t, s)
	w.change(func(w *world) { w.present = false })
	for _, a := range []answered{
		do(t, "PUT", s.URL+tokenPath, ttlHeader, "60"),
		do(t, "GET", s.URL+"/latest/meta-data/mac", tokenHeader, tok),
	} {
		if a.Code != 503 {
			t.Errorf("got %d, want 503", a.Code)
		}
	}
}

// The judge is the client that everybody uses.
func TestSDK(t *testing.T) {
	w, s := serve(t)
	c := sdk.New(sdk.Options{Endpoint: s.URL})
	ctx := t.Context()
	get := func(path string) (string, error) {
		out, err := c.GetMetadata(ctx, &sdk.GetMetadataInput{Path: path})
		if err != nil {
			return "", err
		}
		defer out.Content.Close()
		b, err := io.ReadAll(out.Content)
		return string(b), err
	}
	for path, want := range map[string]string{
		"instance-id":              "i-0abc",
		"network/interfaces/macs/": "02:00:00:00:00:04/\n02:00:00:00:00:05/",
		"network/interfaces/macs/02:00:00:00:00:05/ipv4-prefix": "10.0.0.16/28\n10.0.0.32/28",
	} {
		if got, err := get(path); err != nil || got != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	region, err := c.GetRegion(ctx, nil)
	if err != nil || region.Region != "us-west-2" {
		t.Errorf("region: %+v, %v", region, err)
	}
	doc, err := c.GetInstanceIdentityDocument(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := sdk.InstanceIdentityDocument{
		AvailabilityZone: "us-west-2a", PrivateIP: "10.0.0.4", Version: "2017-09-30", Region: "us-west-2",
		InstanceID: "i-0abc", InstanceType: "m5.large", AccountID: "123456789012", PendingTime: launch,
		ImageID: "ami-0123", Architecture: "x86_64",
	}
	if diff := cmp.Diff(want, doc.InstanceIdentityDocument); diff != "" {
		t.Errorf("identity (-want +got):\n%s", diff)
	}
	info, err := c.GetIAMInfo(ctx, nil)
	if err != nil || info.InstanceProfileArn != "arn:aws:iam::123456789012:instance-profile/node-role" || !info.LastUpdated.Equal(launch) {
		t.Errorf("iam info: %+v, %v", info, err)
	}
	text, err := get("iam/security-credentials/node-role")
	if err != nil {
		t.Fatal(err)
	}
	var creds struct {
		Code, Type, AccessKeyId, SecretAccessKey, Token string
		LastUpdated, Expiration                         time.Time
	}
	if err := json.Unmarshal([]byte(text), &creds); err != nil {
		t.Fatal(err)
	}
	if creds.Code != "Success" || creds.AccessKeyId != "AKIDLAB" || creds.SecretAccessKey != "secret" || creds.Token != "session" || !creds.Expiration.Equal(launch.Add(6*time.Hour)) {
		t.Errorf("credentials: %+v", creds)
	}
	status := func(err error) int {
		var e interface{ HTTPStatusCode() int }
		if !errors.As(err, &e) {
			return 0
		}
		return e.HTTPStatusCode()
	}
	if _, err := get("network/interfaces/macs/02:00:00:00:00:04/ipv4-prefix"); status(err) != 404 {
		t.Errorf("no prefix: %v, want 404", err)
	}
	// The tokens die (a lab restarted, the clock moved): the client gets itself
	// a new one.
	w.change(func(w *world) { w.now = launch.Add(7 * time.Hour) })
	if got, err := get("instance-id"); err != nil || got != "i-0abc" {
		t.Errorf("after the token's end: %q, %v", got, err)
	}
	// What changes on the instance is seen at once.
	w.change(func(w *world) { w.m.Interfaces = w.m.Interfaces[:1] })
	if got, err := get("network/interfaces/macs/"); err != nil || got != "02:00:00:00:00:04/" {
		t.Errorf("after the detach: %q, %v", got, err)
	}
}

// Several clients at once, for the race detector.
func TestParallel(t *testing.T) {
	_, s := serve(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			c := sdk.New(sdk.Options{Endpoint: s.URL})
			if r, err := c.GetRegion(context.Background(), nil); err != nil || r.Region != "us-west-2" {
				t.Errorf("region: %+v, %v", r, err)
			}
		})
	}
	wg.Wait()
}

// What a listing names can be had.
func TestListingsAreComplete(t *testing.T) {
	root := tree(example())
	values := 0
	var walk func(path string)
	walk = func(path string) {
		text, found := resolve(root, path)
		if !found {
			t.Fatalf("%s is listed but cannot be had", path)
		}
		if !strings.HasSuffix(path, "/") {
			values++
			return
		}
		for name := range strings.SplitSeq(text, "\n") {
			walk(path + name)
		}
	}
	walk("/latest/dynamic/")
	walk("/latest/meta-data/")
	if values < 45 {
		t.Errorf("only %d values", values)
	}
}

func FuzzResolve(f *testing.F) {
	for _, seed := range []string{
		"", "/", "//", "latest", "/latest/meta-data/network/interfaces/macs/02:00:00:00:00:05/ipv4-prefix",
		"/latest/meta-data/mac/", "/latest/../latest/", "/latest/meta-data/tags/instance/Na\x00me", "/2021-07-15/dynamic//",
	} {
		f.Add(seed)
	}
	root := tree(example())
	f.Fuzz(func(t *testing.T, path string) {
		text, found := resolve(root, path)
		again, same := resolve(root, "/"+strings.ReplaceAll(path, "/", "//"))
		if text != again || found != same {
			t.Errorf("%q: %q %v, with doubled slashes %q %v", path, text, found, again, same)
		}
		if !found {
			return
		}
		if _, beyond := resolve(root, strings.TrimRight(path, "/")+"/\x00"); beyond {
			t.Errorf("%q has an entry that is nowhere", path)
		}
	})
}

func FuzzToken(f *testing.F) {
	key := []byte("key")
	f.Add(makeToken([]byte("other"), launch))
	f.Add("")
	f.Fuzz(func(t *testing.T, tok string) {
		if left := tokenLife(key, tok, time.Unix(0, 0)); left > 0 {
			t.Errorf("%q, which we never gave, lives %v", tok, left)
		}
	})
}
