package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/edge/agentapi"
	"github.com/fairway-cni/fairway/internal/edge/bundle"
)

func bundleCommand() *cobra.Command {
	var s sources
	var to target
	var files []string
	cmd := &cobra.Command{
		Use:   "bundle -o FILE",
		Short: "Put what explains this node's packets into a file, for fairway path -b",
		Long: `Read this node (devices, rules, routes, switches, filters and sockets, its own and
its pods') and what EC2 says of its VPC and of those that are joined with it, and
put it into one file. Nothing is changed, no packet is captured, and no Secret,
environment or file of a pod is read. It works whichever CNI the node runs. Where
there is a kubeconfig, the names and addresses of the cluster's Services, their
endpoints and its pods are listed too.

--node reads the node alone, --ec2 EC2 alone, from anywhere with credentials, by
--vpc and --region, and --kube the cluster's API alone. fairway path joins several
files: one of EC2 and one of each node that matters, or those of two accounts. With
-b nothing is read but files, which become one: redact it, and a name is the same in
all of it.

--on reads other nodes from anywhere, by the API server alone: a pod on each runs
fairway bundle --node once, its log is the file, and it is deleted.

--redact replaces the names of accounts, VPCs, clusters, nodes, pods and Services,
public addresses, and comments, texts and given names in rules, the same one by the
same, and says what it kept. Have a look at the file before it leaves your hands: tar xzOf FILE.

What could not be read is in the file as unknown, and is said. Reading pods needs
root; what rights EC2 and Kubernetes want is in docs/path.md. Exit status: 0, also where some
was not read; 1 for a failure; 2 for wrong usage.`,
		Example: `  fairway bundle -o node-a1.tgz
  fairway bundle --ec2 --kube --region eu-west-1 --vpc vpc-0a --cluster a -o a.tgz
  fairway bundle --on node-a1,node-b1 --region eu-west-1 -o both.tgz
  ssh node-a1 sudo fairway bundle --node -o - > node-a1.tgz
  fairway bundle --redact -o b.tgz
  fairway bundle -b vpcs.tgz -b names.tgz -b node-a1.tgz --redact -o a.tgz
  fairway bundle --ec2 --region eu-west-1 --vpc vpc-0a -o vpcs.tgz
  fairway path -b vpcs.tgz -b node-a1.tgz default/sleep 10.11.4.91:80`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%w: bundle takes no arguments; see fairway bundle --help", errUsage)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case to.file == "":
				return fmt.Errorf("%w: say where to: -o FILE", errUsage)
			case len(files) > 0:
				if other := otherFlags(cmd, "bundle", "output", "redact", "armor"); other != "" {
					return fmt.Errorf("%w: --%s is for reading; -b FILE makes one of files that were read", errUsage, other)
				}
				return rebundle(cmd.OutOrStdout(), cmd.ErrOrStderr(), files, to)
			case s.node && !s.ec2 && (s.region != "" || len(s.vpcs) > 0):
				return fmt.Errorf("%w: --region and --vpc are of EC2, which --node alone does not read", errUsage)
			case s.ec2 && !s.node && (s.name != "" || s.cluster != "" && !s.kube):
				return fmt.Errorf("%w: --name and --cluster are of the node, which --ec2 alone does not read", errUsage)
			case s.ec2 && !s.node && s.root != "":
				return fmt.Errorf("%w: --root is of the node, which --ec2 alone does not read", errUsage)
			case !s.kube && len(s.on.names) == 0 && (s.node || s.ec2) && (s.kubeconfig != "" || s.context != ""):
				return fmt.Errorf("%w: --kubeconfig and --context are of the cluster, which is not read without --kube", errUsage)
			}
			if err := s.on.validate(); err != nil {
				return fmt.Errorf("%w: %w", errUsage, err)
			}
			if !s.node && !s.ec2 && !s.kube {
				s.node, s.ec2, s.kube = len(s.on.names) == 0, true, true
			}
			return runBundle(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), s, to)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&to.file, "output", "o", "", "the `FILE` to write, which must not exist; -: standard output")
	f.BoolVar(&to.armor, "armor", false, "as lines of text, for what carries nothing else; -b reads these too")
	f.BoolVar(&to.redact, "redact", false, "without names, account IDs, comments and public addresses")
	f.StringArrayVarP(&files, "bundle", "b", nil, "a bundle or a world's JSON, from `FILE`, instead of what is here; may be given again, and all are joined")
	f.BoolVar(&s.node, "node", false, "read this node; with none of --node, --ec2 and --kube, all")
	f.BoolVar(&s.ec2, "ec2", false, "read EC2")
	f.BoolVar(&s.kube, "kube", false, "list the cluster's Services, endpoints and pods")
	clusterFlags(f, &s)
	f.StringVar(&s.name, "name", "", "what the node is called; empty: its host name")
	f.StringVar(&s.cluster, "cluster", "", "the cluster, which labels the places of the node, and Services; empty: the node's VPC does")
	f.StringVar(&s.region, "region", "", "the region; empty: this instance's, or AWS_REGION")
	f.StringArrayVar(&s.vpcs, "vpc", nil, "the `ID` of a VPC to read; may be given again; none: this instance's")
	onFlags(f, &s.on, "")
	f.StringVar(&s.root, "root", "", "the node's root `DIR`, where this runs in a container that shares the node's network and processes; its nft and iptables-save are used")
	f.StringVar(&s.socket, "socket", agentapi.DefaultSocket, "the agent's socket, for the names of pods; without an agent they come from the container runtime")
	return cmd
}

// target is where a bundle goes to, and how.
type target struct {
	file   string // "-": standard output
	redact bool
	armor  bool
}

func runBundle(ctx context.Context, out, stderr io.Writer, s sources, to target) error {
	c, err := s.collect(ctx, stderr, time.Now())
	if err != nil {
		return err
	}
	w := c.world
	w.Name = "bundle"
	if len(w.Nodes) > 0 {
		w.Name = w.Nodes[0].Name
	}
	return c.write(out, stderr, to, false)
}

// otherFlags names a flag that was given and is none of these; empty: there is none.
func otherFlags(cmd *cobra.Command, these ...string) (name string) {
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if !slices.Contains(these, f.Name) {
			name = f.Name
		}
	})
	return name
}

// rebundle makes one file of several.
func rebundle(out, stderr io.Writer, files []string, to target) error {
	sources, err := readSources(files)
	if err != nil {
		return err
	}
	w, err := bundle.Join(sources)
	if err != nil {
		return err
	}
	named := slices.ContainsFunc(sources, func(s bundle.Source) bool { return !s.Redacted })
	return collected{world: w}.write(out, stderr, to, !named)
}

// write writes the file, and says what is in it. redacted: it already is.
func (c collected) write(out, stderr io.Writer, to target, redacted bool) (err error) {
	w := c.world
	var report []string
	if to.redact {
		key := make([]byte, 32)
		_, _ = rand.Read(key) // it does not fail (crypto/rand)
		if w, report, err = bundle.Redact(w, key); err != nil {
			return err
		}
	}
	var b bytes.Buffer
	m, err := bundle.Write(&b, w, to.redact || redacted)
	if err != nil {
		return err
	}
	made := b.Bytes()
	if to.armor {
		made = bundle.Armor(made)
	}
	if to.file != "-" {
		if err := create(to.file, made); err != nil {
			return err
		}
		c.printNotes(stderr)
		return describe(out, to.file, m, report)
	}
	words := stderr
	if to.armor {
		words = out // and before: in a log, lines of standard error could come into its midst
	}
	c.printNotes(words)
	if err := describe(words, "standard output", m, report); err != nil {
		return err
	}
	if _, err := out.Write(made); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	return nil
}

func (c *collected) printNotes(to io.Writer) {
	for _, n := range c.notes {
		fmt.Fprintln(to, notePrefix+n)
	}
}

// create writes a new file, or none.
func create(file string, b []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("write bundle: %w", err), os.Remove(file))
	}
	return nil
}

// describe says what is in the file, and what is not.
func describe(out io.Writer, file string, m bundle.Manifest, report []string) error {
	const most = 20 // lines of what is not known
	fmt.Fprintln(out, file)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, p := range m.Parts {
		fmt.Fprintf(t, "  %s\t%s\t%d bytes\n", p.Kind, p.Of, p.Size)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for i, u := range m.Unknown {
		if i == most {
			fmt.Fprintf(out, "not known: %d more; see %s in the file\n", len(m.Unknown)-most, "000-manifest.json")
			break
		}
		fmt.Fprintln(out, "not known:", u)
	}
	for _, r := range report {
		fmt.Fprintln(out, r)
	}
	return nil
}

// liveWorld reads this node, its VPCs and its cluster, and says what was not read.
func liveWorld(ctx context.Context, stderr io.Writer, s sources) (*path.World, error) {
	s.node, s.ec2, s.kube, s.socket = len(s.on.names) == 0, true, true, agentapi.DefaultSocket
	c, err := s.collect(ctx, stderr, time.Now())
	if err != nil {
		return nil, fmt.Errorf("%w; or choose a world: --example NAME, or -b FILE", err)
	}
	c.printNotes(stderr)
	return asWritten(c.world)
}

// asWritten is a world as a bundle of it is read, so that both give one answer.
func asWritten(w *path.World) (*path.World, error) {
	var b bytes.Buffer
	if _, err := bundle.Write(&b, w, false); err != nil {
		return nil, err
	}
	again, _, err := bundle.Read(b.Bytes())
	return again, err
}

// maxWorldFile bounds what is read of a file, in bytes; package path and package
// bundle have narrower bounds of their own.
const maxWorldFile = 512 << 20

// readWorld reads a bundle, or a world's JSON.
func readWorld(file string) (bundle.Source, error) {
	s := bundle.Source{Name: filepath.Base(file)}
	f, err := os.Open(file)
	if err != nil {
		return s, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxWorldFile+1))
	if err != nil {
		return s, fmt.Errorf("read %s: %w", file, err)
	}
	if _, plain, ok := bundle.Unarmor(b); ok {
		b = plain
	}
	if bundle.IsBundle(b) {
		var m bundle.Manifest
		s.World, m, err = bundle.Read(b)
		s.Redacted = m.Redacted
	} else {
		s.World, err = path.ParseWorld(b)
	}
	if err != nil {
		return s, fmt.Errorf("read %s: %w", file, err)
	}
	return s, nil
}

func readSources(files []string) ([]bundle.Source, error) {
	var all []bundle.Source
	for _, f := range files {
		s, err := readWorld(f)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// readWorlds reads files and joins what they have.
func readWorlds(files []string) (*path.World, error) {
	all, err := readSources(files)
	if err != nil {
		return nil, err
	}
	return bundle.Join(all)
}
