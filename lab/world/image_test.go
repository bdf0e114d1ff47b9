package world

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/fairway-cni/fairway/lab/guest"
)

// TestImage: what the image has is there when the daemons start, at each boot, also
// where installing it failed at first.
func TestImage(t *testing.T) {
	cfg := scratch(t, `
vpcs: [{name: main, cidr: 10.0.0.0/16, subnets: [{name: a, cidr: 10.0.1.0/24}]}]
instances:
  - {name: one, type: m5.large, subnet: a, daemons: [{name: reader, command: [test, -e, /opt/image/file]}]}
`)
	calls := 0 // by the lab's one loop; read while that waits
	cfg.Image = func(ctx context.Context, g *guest.Client) error {
		if calls++; calls == 1 {
			return errors.New("not yet")
		}
		_, err := g.Exec(ctx, guest.Cmd{Argv: []string{"sh", "-c", "mkdir -p /opt/image && : > /opt/image/file"}})
		return err
	}
	l := start(t, cfg)
	<-l.Ready()
	readerSucceeds := func() error {
		d := status(t, l).Instances[0].Daemons
		if len(d) != 1 || d[0].Running || d[0].Exit.Shell() != 0 {
			return fmt.Errorf("daemons are %+v", d)
		}
		return nil
	}
	eventually(t, "the daemon finds the file", readerSucceeds)
	if err := l.Reboot(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the daemon finds the file after a reboot", readerSucceeds)
	if calls != 3 {
		t.Errorf("the image was installed %d times, want 3: one that failed, and one for each boot", calls)
	}
}
