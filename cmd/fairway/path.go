package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/path/example"
	"github.com/fairway-cni/fairway/internal/core/path/paste"
	"github.com/fairway-cni/fairway/internal/core/path/render"
)

// exitStatus is an error with a status of its own. text is empty where all has
// been said.
type exitStatus struct {
	status int
	err    error
}

func (e exitStatus) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e exitStatus) Unwrap() error { return e.err }

// The statuses of path: scripts branch on them.
const (
	pathNotDelivered = 1
	pathUnsure       = 2
	pathUsage        = 3
)

func pathUsageError(err error) error { return exitStatus{pathUsage, err} }

// pathOptions are path's flags.
type pathOptions struct {
	example       string
	files         []string
	proto, output string
	theme         string
	size, mend    int
	whatIf        []string
	assert        string
	all, live     bool
	width         int
	cluster       sources // whose API server is asked
}

func pathCommand() *cobra.Command {
	var o pathOptions
	cmd := &cobra.Command{
		Use:   "path [FROM TO | LINE]",
		Short: "Explain the way of a packet and of its reply, each hop with what decided it",
		Long: `Follow a packet through the pod's namespace, the node's kernel and the VPC to the
other side, and the reply back, by what is known of them: nothing is sent. Behind
a drop the walk goes on as if the packet had passed, so that every fault is found;
a mend is shown when a replay in the mended world proves it.

With --live the packet is sent too, from the pod or node that FROM names, which must
be here. Tracepoints of this node's kernel tell which hops it was met at; the others
have a ~, as they are known from configuration. The first that is not as predicted
is named, with the kernel's reason if it dropped the packet.

FROM and TO are a pod (default/sleep), a node (node:node-a1), an ENI's ID, an
address or "internet"; TO may be a Service too (svc/default/web). A cluster or VPC
and a colon before it tell two of one name apart; TO may end in a port, and that of
a Service in its name. Of a Service each backend is asked for, and those that are
alike are one line. An example has a probe of its own. LINE is a line of a VPC
flow log, or of a kernel that calls a source martian.

Without a world, that of this node is read, or of those that --on names, what EC2 says of its VPC and of those
that are joined with it, and where there is a kubeconfig, the names of Services and
pods. What could not be read is said on stderr. Several worlds are joined.

What is not known, and what is not modelled, is a hop that says so.

Exit status: 0 delivered both ways, 1 not delivered, 2 cannot tell, or with --live
not as predicted, 3 wrong usage, no world, or nothing that can be watched.`,
		Example: `  fairway path --example seed003
  fairway path --example seed003 --with-mend 1
  fairway path --example seed003 --what-if 'node-a1: sysctl net.ipv4.conf.eth1.rp_filter=2'
  fairway path default/sleep 10.11.4.91:80
  fairway path default/sleep svc/default/web:http
  fairway path default/sleep default/web:80 --on ends
  fairway path default/sleep 10.11.4.91:80 --live
  fairway path 'IPv4: martian source 10.11.4.91 from 10.12.7.33, on dev eth1'
  fairway path -b a.tgz -b b.tgz b:default/sleep a:default/httpbin:80 -o json
  fairway path --example seed003 -o svg > seed003.svg
  fairway path --example seed003 -o mermaid
  fairway path -b b.tgz b:default/sleep a:default/httpbin:80 --assert delivered
  fairway path -b b.tgz b:default/sleep a:default/httpbin:80 --assert delivered -o junit
  fairway path -b b.tgz --all`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runPath(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), o, args)
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return pathUsageError(err) })
	f := cmd.Flags()
	worldFlags(cmd, &o)
	f.StringVar(&o.proto, "proto", "", "tcp, udp or icmp; empty: tcp, or what a pasted line says")
	f.IntVar(&o.size, "size", path.SYN, "bytes of the packet, the IP header included; it must not be fragmented")
	f.StringVarP(&o.output, "output", "o", "text", "text, json, svg, mermaid, or with --assert junit")
	f.StringVar(&o.theme, "theme", "auto", "of -o svg: auto, light or dark")
	f.StringArrayVar(&o.whatIf, "what-if", nil, "a change of the world before the packet is followed, as `TARGET: CHANGE`; may be given again")
	f.IntVar(&o.mend, "with-mend", 0, "follow the packet in the world that has the Nth mend of the answer")
	f.StringVar(&o.assert, "assert", "", "say nothing but a line, and exit 0 if the verdict is this one: delivered, dropped or \"cannot tell\"")
	f.BoolVar(&o.all, "all", false, "every class of pods to every other, to the nodes and to the internet")
	f.BoolVar(&o.live, "live", false, "send the packet for real, and say what this node's kernel saw of it; needs root")
	f.IntVar(&o.width, "width", 0, "columns to fold at; 0: COLUMNS, or not at all")
	clusterFlags(f, &o.cluster)
	onFlags(f, &o.cluster.on, ", or \"ends\": the nodes that FROM and TO are on")
	f.StringVar(&o.cluster.region, "region", "", "where no world is given, the region to read; empty: this instance's, or AWS_REGION")
	cmd.AddCommand(pathDiffCommand())
	return cmd
}

func worldFlags(cmd *cobra.Command, o *pathOptions) {
	cmd.Flags().StringVar(&o.example, "example", "", "a built-in world: "+strings.Join(example.Names(), ", "))
	cmd.Flags().StringArrayVarP(&o.files, "bundle", "b", nil, "a bundle or a world's JSON, from `FILE`; may be given again, and all are joined")
}

// load reads the world that the flags name; from and to are the example's probe.
func (o *pathOptions) load(ctx context.Context, stderr io.Writer) (w *path.World, from, to, source string, err error) {
	switch {
	case o.example != "" && len(o.files) > 0:
		return nil, "", "", "", errors.New("choose a world: --example NAME, or -b FILE")
	case o.example != "":
		e, w, err := example.Load(o.example)
		return w, e.From, e.To, " --example " + o.example, err
	case len(o.files) == 0:
		if on := o.cluster.on.names; len(on) > 0 {
			source = " --on " + strings.Join(on, ",")
		}
		w, err := liveWorld(ctx, stderr, o.cluster)
		return w, "", "", source, err
	}
	w, err = readWorlds(o.files)
	return w, "", "", " -b " + strings.Join(o.files, " -b "), err
}

func (o *pathOptions) validate(args []string) error {
	switch {
	case len(args) > 2, len(args) == 1 && !paste.IsLine(args[0]), len(args) == 0 && o.example == "" && !o.all:
		return errors.New("want FROM and TO; see fairway path --help")
	case !slices.Contains([]string{"text", "json", "svg", "mermaid", "junit"}, o.output):
		return fmt.Errorf("--output %q: must be text, json, svg, mermaid, or with --assert junit", o.output)
	case !slices.Contains([]render.Theme{render.Auto, render.Light, render.Dark}, render.Theme(o.theme)):
		return fmt.Errorf("--theme %q: must be auto, light or dark", o.theme)
	case o.all && o.output != "text" && o.output != "json":
		return fmt.Errorf("--all --output %s: must be text or json", o.output)
	case o.assert != "" && o.assert != string(path.Arrived) && o.assert != string(path.Dropped) && o.assert != string(path.Unsure):
		return fmt.Errorf("--assert %q: must be delivered, dropped or \"cannot tell\"", o.assert)
	case o.assert != "" && o.output != "text" && o.output != "junit":
		return fmt.Errorf("--assert says a line, or --output junit: not %s", o.output)
	case o.assert == "" && o.output == "junit":
		return errors.New("--output junit is a test's result: say what is wanted by --assert")
	case o.size < 28 || o.size > 65535:
		return fmt.Errorf("--size %d: must be from 28 to 65535", o.size)
	case o.mend < 0:
		return fmt.Errorf("--with-mend %d: must be the number of a mend, from 1", o.mend)
	case o.live && (o.all || o.example != "" || len(o.whatIf) > 0 || o.mend > 0 || o.assert != ""):
		return errors.New("--live sends one packet in the world that there is: no --example, --all, --what-if, --with-mend or --assert")
	case (len(o.cluster.on.names) > 0 || o.cluster.region != "") && (o.example != "" || len(o.files) > 0):
		return errors.New("--on and --region are for reading a cluster as it is now, and not with --example or -b")
	case o.live && len(o.cluster.on.names) > 0:
		return errors.New("--live sends from this node, and --on reads others: fairway bundle --on NODE -o FILE, and -b FILE, join them with it")
	case (o.cluster.kubeconfig != "" || o.cluster.context != "") && (o.example != "" || len(o.files) > 0):
		return errors.New("--kubeconfig and --context are for reading this node's cluster; fairway bundle --kube -o FILE, and -b FILE, join it with others")
	case o.all && (len(args) > 0 || o.assert != "" || o.mend > 0):
		return errors.New("--all takes no FROM and TO, no --assert and no --with-mend")
	}
	return nil
}

func runPath(ctx context.Context, out, stderr io.Writer, o pathOptions, args []string) error {
	if len(args) > 2 { // a line that was pasted without quotes
		if _, err := paste.Parse(strings.Join(args, " ")); err == nil {
			args = []string{strings.Join(args, " ")}
		}
	}
	if err := o.validate(args); err != nil {
		return pathUsageError(err)
	}
	if len(args) == 1 {
		from, to, err := o.pasted(stderr, args[0])
		if err != nil {
			return pathUsageError(err)
		}
		args = []string{from, to}
	}
	o.cluster.on.ends = args
	if err := o.cluster.on.validate(); err != nil {
		return pathUsageError(err)
	}
	w, from, to, source, err := o.load(ctx, stderr)
	if err != nil {
		return pathUsageError(err)
	}
	if w, err = withEdits(w, o.whatIf); err != nil {
		return pathUsageError(fmt.Errorf("--what-if %w", err))
	}
	if o.all {
		return runAll(out, w, o)
	}
	if len(args) == 2 {
		from, to = args[0], args[1]
	}
	if from == "" {
		return pathUsageError(errors.New("want FROM and TO; see fairway path --help"))
	}
	r, err := explain(w, path.Probe{From: from, To: to, Proto: path.Proto(o.proto), Size: o.size}, o.mend)
	if err != nil {
		return pathUsageError(err)
	}
	r.Taken, r.Command = w.Taken, o.again(source, from, to)
	if o.assert != "" {
		return assertVerdict(out, r, o)
	}
	if o.live {
		if to == "internet" {
			return pathUsageError(errors.New("--live: the internet is many; name an address"))
		}
		l, err := sendLive(ctx, r.Answer)
		if err != nil {
			return pathUsageError(err)
		}
		r.Live = &l
	}
	if err := writeReport(out, r, o); err != nil {
		return err
	}
	if r.Live != nil {
		return statusOfLive(r.Answer, r.Live)
	}
	return statusOf(r.Answer.Verdict)
}

// pasted is the flow that a line tells of. A martian's line does not say the protocol,
// so that --proto may.
func (o *pathOptions) pasted(stderr io.Writer, line string) (from, to string, err error) {
	flow, err := paste.Parse(line)
	if err != nil {
		return "", "", err
	}
	switch said := path.Proto(o.proto); {
	case said == "" || said == flow.Proto:
	case flow.Kind == "martian":
		flow.Proto = said
	default:
		return "", "", fmt.Errorf("--proto %s: the line is of %s", said, flow.Proto)
	}
	o.proto = string(flow.Proto)
	fmt.Fprintln(stderr, "fairway: understood as", flow)
	from, to = flow.Ends()
	return from, to, nil
}

// again is how to see the same again.
func (o *pathOptions) again(source, from, to string) string {
	text := "fairway path" + source + " " + from + " " + to
	if o.proto != "" && o.proto != string(path.TCP) {
		text += " --proto " + o.proto
	}
	if o.size != path.SYN {
		text += fmt.Sprintf(" --size %d", o.size)
	}
	for _, e := range o.whatIf {
		text += " --what-if '" + e + "'"
	}
	if o.mend > 0 {
		text += fmt.Sprintf(" --with-mend %d", o.mend)
	}
	return text
}

func withEdits(w *path.World, texts []string) (*path.World, error) {
	var edits []path.Edit
	for _, s := range texts {
		e, err := path.ParseEdit(s)
		if err != nil {
			return nil, err
		}
		edits = append(edits, e)
	}
	return w.With(edits...)
}

// explain answers, and if a mend is asked for, answers again in its world.
func explain(w *path.World, p path.Probe, mend int) (render.Report, error) {
	for {
		t := path.NewTracer(w)
		a, err := t.Trace(p)
		if err != nil {
			return render.Report{}, err
		}
		d, err := t.Diagnose(a)
		if err != nil || mend == 0 {
			return render.Report{Answer: a, Diagnosis: d}, err
		}
		if mend > len(d.Mends) {
			return render.Report{}, fmt.Errorf("--with-mend %d: the answer has %d", mend, len(d.Mends))
		}
		if w, err = w.With(d.Mends[mend-1].Edits...); err != nil {
			return render.Report{}, err
		}
		mend = 0
	}
}

func writeReport(out io.Writer, r render.Report, o pathOptions) error {
	text := ""
	switch o.output {
	case "json":
		b, err := render.JSON(r)
		if err != nil {
			return err
		}
		text = string(b)
	case "svg":
		text = render.SVG(r, render.Theme(o.theme))
	case "mermaid":
		text = render.Mermaid(r)
	default:
		text = render.Text(r, style(out, o.width))
	}
	_, err := io.WriteString(out, text)
	return err
}

// style folds at the terminal's width and colours what a terminal shows.
func style(out io.Writer, width int) render.Style {
	s := render.Style{Width: width}
	if width == 0 {
		s.Width, _ = strconv.Atoi(os.Getenv("COLUMNS"))
	}
	if f, ok := out.(*os.File); ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" {
		info, err := f.Stat()
		s.Colour = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return s
}

func statusOf(v path.Verdict) error {
	switch v {
	case path.Arrived:
		return nil
	case path.Dropped:
		return exitStatus{status: pathNotDelivered}
	}
	return exitStatus{status: pathUnsure}
}

func assertVerdict(out io.Writer, r render.Report, o pathOptions) error {
	if o.output == "junit" {
		text, err := render.JUnit(r, path.Verdict(o.assert))
		if err == nil {
			_, err = io.WriteString(out, text)
		}
		if err != nil {
			return err
		}
	} else {
		fmt.Fprintf(out, "%s -> %s: %s\n", r.Answer.Probe.From, r.Answer.Probe.To, render.Sentence(r.Answer))
	}
	switch {
	case string(r.Answer.Verdict) == o.assert:
		return nil
	case r.Answer.Verdict == path.Unsure:
		return exitStatus{pathUnsure, fmt.Errorf("cannot tell, want %s", o.assert)}
	}
	return exitStatus{pathNotDelivered, fmt.Errorf("%s, want %s", r.Answer.Verdict, o.assert)}
}
