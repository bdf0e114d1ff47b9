package cli

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/fairway-cni/fairway/lab/guest"
	"github.com/fairway-cni/fairway/lab/world"
)

func execCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "exec INSTANCE -- COMMAND [ARG...]",
		Short: "Run a command in an instance, with the lab's EC2 endpoint in its environment",
		Long: `Run a command in an instance: in its network, mount, PID and UTS namespaces and
its cgroup, as root, with AWS_ENDPOINT_URL_EC2 and AWS_REGION set. The exit
status is the command's.`,
		Example: `  fairway-lab exec node-a -- cat /proc/net/route
  fairway-lab exec node-a -- aws ec2 describe-network-interfaces`,
		Args: arguments(cobra.MinimumNArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, in, s, err := o.instance(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			status, err := c.Exec(cmd.Context(), o.inside(s, in, args[1:]))
			if err != nil {
				return err
			}
			return exitError(status)
		},
	}
}

// inside is a command for an instance with our own standard files.
func (o *options) inside(s world.Status, in world.InstanceStatus, argv []string) guest.Cmd {
	env := append(world.Env(in.Region, s.Path), "TERM="+o.Term)
	return guest.Cmd{Argv: argv, Env: env, Dir: "/", Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Signals: o.Signals}
}

func exitError(s guest.ExitStatus) error {
	if code := s.Shell(); code != 0 {
		return &ExitError{code}
	}
	return nil
}

// programIn is the path of this program as the lab's instances see it: the
// lab's own, which may not be the one that asks.
func programIn(s world.Status, fallback string) string {
	for _, dir := range s.Path {
		p := filepath.Join(dir, "fairway-lab")
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	return fallback
}
