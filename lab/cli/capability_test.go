package cli

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCapabilities(t *testing.T) {
	for _, tt := range []struct {
		name string
		c    capabilities
		want []string
	}{
		{"none", capabilities{}, nil},
		{"ports", capabilities{hostPorts: []string{"8080:80", "53:5353/udp"}},
			[]string{`--capabilities={"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"},{"hostPort":53,"containerPort":5353,"protocol":"udp"}]}`}},
		{"bandwidth", capabilities{bandwidth: 8000},
			[]string{`--capabilities={"bandwidth":{"ingressRate":8000,"ingressBurst":2147483647,"egressRate":8000,"egressBurst":2147483647}}`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.c.arguments()
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("arguments (-want +got):\n%s", d)
			}
		})
	}
	for _, s := range []string{"", "80", "80:", ":80", "0:80", "80:0", "80:65536", "80:80/icmp", "80:80/", "a:b", "1:2:3"} {
		c := capabilities{hostPorts: []string{s}}
		if _, err := c.arguments(); !errors.Is(err, ErrUsage) {
			t.Errorf("host port %q: %v, want wrong usage", s, err)
		}
	}
}
