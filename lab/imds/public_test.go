package imds

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// An instance sees what the internet sees of it, in all three places.
func TestPublicAddresses(t *testing.T) {
	w, s := serve(t)
	at := netip.MustParseAddr
	w.change(func(w *world) {
		w.m.PublicIPv4 = at("198.51.100.1")
		w.m.Interfaces[0].Public = []Association{
			{Public: at("198.51.100.1"), Private: at("10.0.0.4")}, {Public: at("198.51.100.2"), Private: at("10.0.0.9")},
		}
	})
	tok := token(t, s)
	const eni1 = "/latest/meta-data/network/interfaces/macs/02:00:00:00:00:04/"
	const eni2 = "/latest/meta-data/network/interfaces/macs/02:00:00:00:00:05/"
	for path, want := range map[string]string{
		"/latest/meta-data/public-ipv4":         "198.51.100.1",
		eni1 + "public-ipv4s":                   "198.51.100.1\n198.51.100.2",
		eni1 + "ipv4-associations/":             "198.51.100.1\n198.51.100.2",
		eni1 + "ipv4-associations/198.51.100.2": "10.0.0.9",
		eni1 + "ipv4-associations/198.51.100.3": "",
		eni2 + "public-ipv4s":                   "",
		eni2 + "ipv4-associations/198.51.100.1": "",
		"/latest/meta-data/public-hostname":     "",
		"/latest/meta-data/local-ipv4":          "10.0.0.4",
	} {
		a := do(t, "GET", s.URL+path, tokenHeader, tok)
		if want == "" {
			if a.Code != 404 {
				t.Errorf("%s: %d %q, want 404", path, a.Code, a.Body)
			}
			continue
		}
		if diff := cmp.Diff(want, a.Body); a.Code != 200 || diff != "" {
			t.Errorf("%s: %d (-want +got)\n%s", path, a.Code, diff)
		}
	}
}
