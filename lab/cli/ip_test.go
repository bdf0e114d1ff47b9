package cli

import (
	"strings"
	"testing"

	"github.com/fairway-cni/fairway/lab/world"
)

// TestIPUsage: what is behind the instance's name is ip's, its options too; what
// it does not know is refused before anything is asked of a lab.
func TestIPUsage(t *testing.T) {
	lab := absent()
	for _, tt := range []struct {
		args   string
		status int
		stderr string // a part
	}{
		{"ip", 2, "requires at least 1 arg(s)"},
		{"ip --nonsense node-a", 2, "unknown flag: --nonsense"},
		{"ip node-a", 2, "want an object: address, route, rule, link, neighbour"},
		{"ip node-a rule add from 10.11.4.91 lokup 11", 2, `"ip rule add from 10.11.4.91 lokup 11": word 5: unknown word "lokup"; known here: not, from, to`},
		{"ip node-a rule --nonsense", 2, `word 2: unknown option "--nonsense"; known: -4, -6, -j, -o json`},
		{"ip node-a rule -o table", 2, "-o: want json after it"},
		{"ip --lab " + lab + " node-a rule", 1, "no lab of this name is running"},
		{"--lab " + lab + " ip node-a -6 route show table all -o json", 1, "no lab of this name is running"},
		{"--lab " + lab + " ip node-a/web -- ru a from 10.11.4.91 to 10.11.0.0/16 lookup 11 pref 111", 1, "no lab of this name is running"},
	} {
		s := runCLI(t, strings.Fields(tt.args)...)
		if s.status != tt.status || !strings.Contains(s.stderr, tt.stderr) || !strings.HasPrefix(s.stderr, "fairway-lab: ") || s.stdout != "" {
			t.Errorf("%s: %+v: want status %d and %q", tt.args, s, tt.status, tt.stderr)
		}
	}
	for _, args := range []string{"ip --help", "ip node-a help", "ip node-a rule add help"} {
		s := runCLI(t, strings.Fields(args)...)
		if s.status != 0 || s.stderr != "" || !strings.Contains(s.stdout, "route get A") {
			t.Errorf("%s: %+v: want help", args, s)
		}
	}
}

func TestStateOf(t *testing.T) {
	for want, in := range map[string]world.InstanceStatus{
		"stopped": {State: "stopped"},
		"killed; fairway-lab instance reboot boots it": {State: "running", Killed: true},
	} {
		if got := stateOf(in); got != want {
			t.Errorf("state of %+v: got %q, want %q", in, got, want)
		}
	}
}
