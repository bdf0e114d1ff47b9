package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/path/render"
	"github.com/fairway-cni/fairway/lab/pathworld"
)

// notArrived is the error of an answer that is not delivered both ways.
func notArrived(v path.Verdict) error {
	switch v {
	case path.Arrived:
		return nil
	case path.Unsure:
		return errors.New("cannot tell whether it is delivered both ways")
	}
	return errors.New("not delivered both ways")
}

func pathCommand(o *options) *cobra.Command {
	var f pathFlags
	cmd := &cobra.Command{
		Use:   "path [FROM TO]",
		Short: "Explain the way of a packet in this lab, as fairway path does",
		Long: `Read what the lab's EC2 and the kernels of its instances and pods hold, and follow
a packet through it and its reply back. Nothing is sent; probe and send do that.

FROM and TO are INSTANCE/POD, node:INSTANCE, an ENI's ID, an address or
"internet"; TO may end in a port. Identifiers are shown as names, such as
eni-node-a-ens6 and rtb-main. With --listen somebody listens on the port, as while
probe runs. With --world what was read is written to a file, for fairway path -b.`,
		Example: `  fairway-lab path node-a/web node-b/api:80
  fairway-lab path node:node-a internet:443 --proto tcp
  fairway-lab path --world lab.json`,
		Args: arguments(func(_ *cobra.Command, args []string) error {
			if len(args) == 2 || len(args) == 0 && f.file != "" {
				return nil
			}
			return errors.New("want FROM and TO, or --world FILE")
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.path(cmd.Context(), f, args)
		},
	}
	cmd.Flags().StringVar(&f.proto, "proto", "tcp", "tcp, udp or icmp")
	cmd.Flags().IntVar(&f.size, "size", path.SYN, "bytes of the packet, the IP header included; it must not be fragmented")
	cmd.Flags().Uint16Var(&f.listen, "listen", 0, "have somebody listen on `PORT` everywhere; TO means it if it names none")
	cmd.Flags().StringArrayVar(&f.whatIf, "what-if", nil, "make a `CHANGE` first, as fairway path does; may be given again")
	cmd.Flags().StringVar(&f.file, "world", "", "write what was read to `FILE`")
	return cmd
}

// pathFlags are the flags of the command.
type pathFlags struct {
	proto, file string
	size        int
	listen      uint16
	whatIf      []string
}

func (o *options) path(ctx context.Context, f pathFlags, args []string) error {
	w, err := o.pathWorld(ctx)
	if err != nil {
		return err
	}
	if f.file != "" {
		b, err := w.JSON()
		if err == nil {
			err = os.WriteFile(f.file, b, 0o644)
		}
		if err != nil {
			return fmt.Errorf("write world: %w", err)
		}
	}
	if len(args) == 0 {
		return nil
	}
	r, _, err := o.remote()
	if err != nil {
		return err
	}
	all, err := r.Objects(ctx)
	if err != nil {
		return err
	}
	w, ids, err := named(w, all.Objects)
	if err != nil {
		return err
	}
	p := path.Probe{From: ids.Replace(args[0]), To: ids.Replace(args[1]), Proto: path.Proto(f.proto), Size: f.size}
	if f.listen != 0 {
		listen(w, p.Proto, f.listen)
		if !hasPort(p.To) {
			p.Port = f.listen
		}
	}
	var edits []path.Edit
	for _, text := range f.whatIf {
		e, err := path.ParseEdit(ids.Replace(text))
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUsage, err)
		}
		edits = append(edits, e)
	}
	if w, err = w.With(edits...); err != nil {
		return fmt.Errorf("%w: %w", ErrUsage, err)
	}
	return o.explain(w, p)
}

// hasPort says whether a target names one: a node begins with a word and a colon.
func hasPort(to string) bool {
	i := strings.LastIndexByte(to, ':')
	_, err := strconv.ParseUint(to[i+1:], 10, 16)
	return i > 0 && err == nil
}

func (o *options) explain(w *path.World, p path.Probe) error {
	r, err := explanation(w, p)
	if err != nil {
		return err
	}
	fmt.Fprint(o.Stdout, render.Text(r, render.Style{Width: o.Columns}))
	return notArrived(r.Answer.Verdict)
}

func explanation(w *path.World, p path.Probe) (render.Report, error) {
	t := path.NewTracer(w)
	a, err := t.Trace(p)
	if err != nil {
		return render.Report{}, fmt.Errorf("%w: %w", ErrUsage, err)
	}
	d, err := t.Diagnose(a)
	if err != nil {
		return render.Report{}, fmt.Errorf("diagnose: %w", err)
	}
	return render.Report{Answer: a, Diagnosis: d, Taken: w.Taken, Command: fmt.Sprintf("fairway-lab path %s %s --proto %s", p.From, p.To, a.Probe.Proto)}, nil
}

// explainOne shows the way of one packet, from the last pod of the first instance
// to the last of the last: each is on an ENI that the agent has attached. It is an
// echo, as nobody listens any more when the flows are done. It is drawn into a file
// if one is named.
func (o *options) explainOne(ctx context.Context, pods []Pod, svg string) error {
	w, err := o.pathWorld(ctx)
	if err != nil {
		return err
	}
	var from, to string
	for _, p := range pods {
		if p.Instance == pods[0].Instance {
			from = p.Instance + "/" + p.Name
		}
		to = p.Instance + "/" + p.Name
	}
	r, err := explanation(w, path.Probe{From: from, To: to, Proto: path.ICMP})
	if err != nil {
		return err
	}
	fmt.Fprintf(o.Stdout, "The way of an echo from %s to %s and back:\n%s", from, to, render.Text(r, render.Style{Width: o.Columns}))
	if svg != "" {
		if err := os.WriteFile(svg, []byte(render.SVG(r, render.Auto)), 0o644); err != nil {
			return fmt.Errorf("draw the way: %w", err)
		}
		fmt.Fprintf(o.Stdout, "As a picture: %s\n", svg)
	}
	fmt.Fprintln(o.Stdout)
	return notArrived(r.Answer.Verdict)
}

// pathWorld reads the lab as a world. A pod's namespace there is the name of its
// instance.
func (o *options) pathWorld(ctx context.Context) (*path.World, error) {
	r, name, err := o.remote()
	if err != nil {
		return nil, err
	}
	status, err := r.Status(ctx)
	if err != nil {
		return nil, err
	}
	snap, err := r.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	pods, err := o.allPods(ctx, nil)
	if err != nil {
		return nil, err
	}
	var open []*os.File
	defer func() {
		for _, f := range open {
			f.Close()
		}
	}()
	netns := func(path string) (*os.File, error) {
		f, err := os.Open(path)
		if err == nil {
			open = append(open, f)
		}
		return f, err
	}
	var hosts []pathworld.Host
	for _, in := range running(status) {
		proc := filepath.Join("/proc", strconv.Itoa(in.PID))
		h := pathworld.Host{Instance: in.ID, Name: in.Name}
		if h.NetNS, err = netns(filepath.Join(proc, "ns/net")); err != nil {
			return nil, fmt.Errorf("open network namespace of %s: %w", in.Name, err)
		}
		for _, p := range pods {
			if p.Instance != in.Name || !p.Ready || len(p.Addresses) == 0 {
				continue
			}
			pod := pathworld.Pod{Namespace: in.Name, Name: p.Name, Addr: p.Addresses[0].Addr()}
			if pod.NetNS, err = netns(filepath.Join(proc, "root", p.NetNS)); err != nil {
				return nil, fmt.Errorf("open network namespace of pod %s: %w", p.Name, err)
			}
			h.Pods = append(h.Pods, pod)
		}
		hosts = append(hosts, h)
	}
	return pathworld.Read(name, snap, hosts)
}
