package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/fairway-cni/fairway/internal/edge/agentapi"
)

// writeStatus is the status for people.
func writeStatus(out io.Writer, s agentapi.Status) error {
	w := bufio.NewWriter(out)
	fmt.Fprintln(w, verdict(s))
	for _, p := range s.Problems {
		fmt.Fprintf(w, "%s: %s\n", p.Severity, printable(p.Text))
	}
	fmt.Fprintln(w)
	writePool(w, s)
	fmt.Fprintln(w)
	writeENIs(w, s)
	if len(s.Pods) > 0 {
		fmt.Fprintln(w)
		writePods(w, s)
	}
	if len(s.Waiting) > 0 {
		fmt.Fprintln(w)
		t := table(w, "WAITS FOR AN ADDRESS", "INTERFACE", "SINCE")
		for _, q := range s.Waiting {
			row(t, "container "+short(q.ContainerID), q.Interface, ago(s, q.Since))
		}
		t.Flush()
	}
	if len(s.InFlight) > 0 {
		fmt.Fprintln(w)
		t := table(w, "UNDER WAY", "SINCE", "WHY")
		for _, f := range s.InFlight {
			row(t, f.Text, ago(s, f.Since), f.Why)
		}
		t.Flush()
	}
	if len(s.Refused) > 0 {
		fmt.Fprintln(w)
		t := table(w, "LEFT ALONE", "TARGET", "TIMES", "AGAIN IN", "REASON")
		for _, r := range s.Refused {
			times := "-"
			if r.Times > 0 {
				times = strconv.Itoa(r.Times)
			}
			row(t, r.Kind, cmp.Or(r.Target, "-"), times, agentapi.Span(r.Until.Sub(s.At)), r.Reason)
		}
		t.Flush()
	}
	if len(s.Subnets) > 0 {
		fmt.Fprintln(w)
		t := table(w, "SUBNET", "ZONE", "CIDR", "FREE ADDRESSES")
		for _, n := range s.Subnets {
			free := strconv.Itoa(n.Free)
			if n.Free < 0 {
				free = "not known"
			}
			row(t, n.ID, n.Zone, n.CIDR, free)
		}
		t.Flush()
	}
	return w.Flush()
}

// verdict is the first line.
func verdict(s agentapi.Status) string {
	text := fmt.Sprintf("node %s (%s): %d of %d addresses in use, %d free", s.Node.InstanceID, s.Node.InstanceType, s.Pool.Assigned, s.Pool.Capacity, s.Pool.Free)
	switch n := len(s.Waiting); {
	case n == 1:
		text += ", 1 pod waits, since " + ago(s, s.Waiting[0].Since)
	case n > 1:
		text += fmt.Sprintf(", %d pods wait, the first since %s", n, ago(s, s.Waiting[0].Since))
	default:
		text += ", nothing waits"
	}
	wrong := 0
	for _, p := range s.Problems {
		if p.Severity == agentapi.Wrong {
			wrong++
		}
	}
	switch {
	case wrong == 1:
		text += "; 1 thing is wrong"
	case wrong > 1:
		text += fmt.Sprintf("; %d things are wrong", wrong)
	}
	return text
}

// writePool is what there is, what is wanted, and how EC2 stands.
func writePool(w io.Writer, s agentapi.Status) {
	n := s.Pool
	parts := []string{fmt.Sprintf("%d assigned", n.Assigned), fmt.Sprintf("%d free", n.Free)}
	for _, p := range []struct {
		n    int
		text string
	}{
		{n.Cooling, "cooling"},
		{n.Reserved, "reserved"},
		{n.Leaving, "being given back"},
		{n.Arriving, "on their way"},
		{n.Disputed, "not certain"},
	} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.text))
		}
	}
	text := fmt.Sprintf("%d: %s", n.Total, strings.Join(parts, ", "))
	if n.Cooling > 0 && !n.NextFree.IsZero() {
		text += fmt.Sprintf(" (the next is free in %s)", agentapi.Span(n.NextFree.Sub(s.At)))
	}
	if n.Orphaned > 0 {
		text += fmt.Sprintf("; and %d that pods have and no ENI", n.Orphaned)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row(t, "addresses", text)
	row(t, "wanted", wanted(s.Wanted))
	row(t, "targets", targets(s))
	row(t, "ec2", standing(s))
	if p := s.Paths; !p.ProvedAt.IsZero() {
		row(t, "ways of pods", proven(p)+", proven "+ago(s, p.ProvedAt)+" ago")
	}
	if s.Node.Custom != "" {
		row(t, "custom networking", "ENIConfig "+s.Node.Custom)
	}
	t.Flush()
}

func wanted(n agentapi.Wanted) string {
	what := many(n.Addresses, "address", "addresses")
	if n.Prefixes > 0 {
		what = many(n.Prefixes, "prefix", "prefixes") + " of 16"
	}
	return fmt.Sprintf("%s on %s: %s", what, many(n.ENIs, "ENI", "ENIs"), n.Why)
}

// targets are those that count.
func targets(s agentapi.Status) string {
	var parts []string
	t := s.Targets
	switch {
	case t.WarmIPs > 0 || t.MinimumIPs > 0:
		parts = append(parts, many(t.WarmIPs, "warm address", "warm addresses"))
		if t.MinimumIPs > 0 {
			parts = append(parts, fmt.Sprintf("at least %d", t.MinimumIPs))
		}
	case t.Prefixes:
		parts = append(parts, many(max(t.WarmPrefixes, 1), "warm prefix", "warm prefixes"))
	default:
		parts = append(parts, many(t.WarmENIs, "warm ENI", "warm ENIs"))
	}
	parts = append(parts, fmt.Sprintf("at most %s", many(s.Node.MaxENIs, "ENI", "ENIs")))
	if n := s.Node.MaxPods; n > 0 {
		parts = append(parts, many(n, "pod", "pods"))
	}
	if !t.Provisioning {
		parts = append(parts, "EC2 is asked for no change")
	}
	return strings.Join(parts, ", ")
}

// standing is how the agent stands with EC2.
func standing(s agentapi.Status) string {
	var text string
	switch {
	case !s.EC2.Used:
		return "not called"
	case s.EC2.Offline:
		text = "does not answer"
	default:
		text = "answers"
	}
	if s.EC2.ListedAt.IsZero() {
		return text + "; the ENIs were not listed yet"
	}
	return text + "; listed the ENIs " + ago(s, s.EC2.ListedAt) + " ago"
}

// proven is what the last proof of pods' ways found.
func proven(p agentapi.Paths) string {
	switch {
	case p.Problem != "":
		return "cannot be computed: " + p.Problem
	case p.Classes == 0:
		return "no pod has one yet"
	case len(p.Broken) > 0:
		return fmt.Sprintf("%d of %d are broken", len(p.Broken), p.Classes)
	case p.Unknown > 0:
		return fmt.Sprintf("%d of %d are symmetric, the others not known", p.Classes-p.Unknown, p.Classes)
	}
	return fmt.Sprintf("all %d are symmetric", p.Classes)
}

func writeENIs(w io.Writer, s agentapi.Status) {
	t := table(w, "ENI", "INDEX", "DEVICE", "SUBNET", "STATE", "ADDRESSES", "PREFIXES", "PODS")
	for _, e := range s.ENIs {
		index := "-"
		if e.DeviceIndex >= 0 {
			index = strconv.Itoa(e.DeviceIndex)
		}
		if e.CardIndex > 0 {
			index = fmt.Sprintf("card %d, %s", e.CardIndex, index)
		}
		state := e.State
		if !e.Since.IsZero() {
			state += ", since " + ago(s, e.Since)
		}
		if e.Why != "" {
			state += ": " + e.Why
		}
		row(t, e.ID, index, cmp.Or(e.Device, "-"), e.Subnet, state, strconv.Itoa(e.Addresses), strconv.Itoa(e.Prefixes), strconv.Itoa(e.Pods))
	}
	t.Flush()
}

func writePods(w io.Writer, s agentapi.Status) {
	t := table(w, "POD", "INTERFACE", "ADDRESS", "ENI", "DEVICE", "SINCE", "CONTAINER")
	for _, p := range s.Pods {
		name := "-"
		if p.Name != "" {
			name = p.Namespace + "/" + p.Name
		}
		eni := p.ENI
		if p.Lost {
			eni = "lost"
		}
		row(t, name, p.Interface, p.Address, eni, cmp.Or(p.Device, "-"), ago(s, p.Since), short(p.ContainerID))
	}
	t.Flush()
}

func table(w io.Writer, columns ...string) *tabwriter.Writer {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row(t, columns...)
	return t
}

// row writes the cells on one line.
func row(t io.Writer, cells ...string) {
	for i, c := range cells {
		cells[i] = printable(c)
	}
	fmt.Fprintln(t, strings.Join(cells, "\t"))
}

// printable keeps a text on its line and a terminal as it is: reasons are EC2's
// words, and names those of whoever called the plugin.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}

// ago is how long ago a time was at the time of the status.
func ago(s agentapi.Status, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return agentapi.Span(s.At.Sub(t))
}

// short is enough of a container's id for people, as container tools show it.
func short(id string) string {
	return cmp.Or(id[:min(len(id), 12)], "-")
}

func many(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}
