package world

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/guest"
)

// Status is what a lab is at one moment, for people and for programs.
type Status struct {
	Name      string           `json:"name"`
	Region    string           `json:"region"`
	Dir       string           `json:"dir"`
	PID       int              `json:"pid"`
	Ready     bool             `json:"ready"`
	Failure   string           `json:"failure,omitempty"`
	Path      []string         `json:"path"`
	Instances []InstanceStatus `json:"instances"`
	ENIs      []ENIStatus      `json:"enis"`
	Links     []LinkStatus     `json:"links,omitempty"`

	// Internet is the network namespace of the hosts beyond the internet
	// gateways, as a file that root can open while the lab runs.
	Internet string `json:"internet,omitempty"`
}

// InstanceStatus is one instance.
type InstanceStatus struct {
	ID      string               `json:"id"`
	Name    string               `json:"name"`
	Type    string               `json:"type"`
	State   string               `json:"state"`
	Zone    string               `json:"zone"`
	Region  string               `json:"region"`
	Address netip.Addr           `json:"address"`
	PID     int                  `json:"pid,omitempty"`    // of its init, on the host
	Socket  string               `json:"socket,omitempty"` // of its control
	Daemons []guest.DaemonStatus `json:"daemons"`
	Killed  bool                 `json:"killed,omitempty"` // without power, which EC2 does not know
}

// ENIStatus is one network interface, with what the fabric dropped of its
// packets, by reason.
type ENIStatus struct {
	ID        string            `json:"id"`
	Instance  string            `json:"instance,omitempty"`
	Device    string            `json:"device,omitempty"`
	Status    string            `json:"status"`
	MAC       string            `json:"mac"`
	Primary   netip.Addr        `json:"primary"`
	Secondary []netip.Addr      `json:"secondary,omitempty"`
	Prefixes  []netip.Prefix    `json:"prefixes,omitempty"`
	Drops     map[string]uint64 `json:"drops,omitempty"`
	VPC       string            `json:"vpc"`
	Region    string            `json:"region"`
	Subnet    string            `json:"subnet"`
	Groups    []string          `json:"groups"`
}

// Status reads what the lab is now.
func (l *Lab) Status(ctx context.Context, pid int) (Status, error) {
	w := l.cfg.World
	s := Status{Name: w.Name, Region: w.Region, Dir: l.cfg.Dir, PID: pid, Path: l.cfg.Path}
	select {
	case <-l.ready:
		s.Ready = true
	default:
	}
	if err := l.Failure(); err != nil {
		s.Failure = err.Error()
	}
	if ns := l.fabric.Internet(); ns != nil {
		s.Internet = fmt.Sprintf("/proc/%d/fd/%d", pid, ns.Fd())
	}
	snap := l.cloud.Snapshot()
	for _, i := range snap.Instances {
		in := InstanceStatus{ID: i.ID, Name: i.Name, Type: i.Type, State: i.State, Zone: i.Zone, Region: regionOf(snap, i), Address: i.PrivateIP, Killed: l.isOff(i.ID)}
		if m := l.machine(i.ID); m != nil {
			daemons, err := m.Daemons(ctx)
			switch {
			case err == nil:
				in.PID, in.Socket, in.Daemons = m.PID(), socketPath(l.cfg.Dir, i.ID), daemons
			case ctx.Err() != nil || !m.ending.Load():
				return Status{}, fmt.Errorf("list daemons of %s: %w", i.ID, err)
			} // else it lost its power just now
		}
		s.Instances = append(s.Instances, in)
	}
	drops, err := l.fabric.Counters()
	if err != nil {
		return Status{}, err
	}
	for _, e := range snap.Interfaces {
		eni := ENIStatus{ID: e.ID, Status: e.Status, MAC: e.MAC.String(), Primary: e.Primary, Secondary: e.Secondary, Prefixes: e.Prefixes}
		if a := e.Attachment; a != nil {
			eni.Instance, eni.Device, eni.Status = a.InstanceID, deviceName(*a), a.Status
		}
		eni.Drops = dropsByName(drops[e.ID])
		eni.where(snap, e)
		s.ENIs = append(s.ENIs, eni)
	}
	s.Links, err = l.linkStatus(snap)
	return s, err
}

func socketPath(dir, id string) string { return dir + "/" + id + "/" + guest.SocketName }

// Find gives the instance of that name or ID.
func (s Status) Find(name string) (InstanceStatus, error) {
	var names []string
	for _, i := range s.Instances {
		if (i.Name == name || i.ID == name) && i.State != ec2sim.StateTerminated {
			return i, nil
		}
		names = append(names, cmp.Or(i.Name, i.ID))
	}
	return InstanceStatus{}, fmt.Errorf("no instance %q in lab %s; there are: %s", name, s.Name, strings.Join(names, ", "))
}

// WriteTables prints the status for a person.
func (s Status) WriteTables(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "INSTANCE\tID\tTYPE\tZONE\tSTATE\tADDRESS\tDAEMONS")
	names := make(map[string]string)
	for _, i := range s.Instances {
		names[i.ID] = cmp.Or(i.Name, i.ID)
		state := i.State
		if i.Killed {
			state += " (killed)"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", cmp.Or(i.Name, "-"), i.ID, i.Type, i.Zone, state, orDash(i.Address), daemons(i.Daemons))
	}
	fmt.Fprintln(t)
	fmt.Fprintln(t, "ENI\tINSTANCE\tDEVICE\tSTATUS\tPRIMARY\tSECONDARY\tPREFIXES\tDROPPED")
	for _, e := range s.ENIs {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", e.ID, cmp.Or(names[e.Instance], "-"), cmp.Or(e.Device, "-"), e.Status,
			e.Primary, addresses(e.Secondary), list(e.Prefixes), drops(e.Drops))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	s.writeLinks(t)
	if err := t.Flush(); err != nil {
		return err
	}
	if s.Failure != "" {
		fmt.Fprintf(w, "\nnot as asked for: %s\n", s.Failure)
	}
	return nil
}

// orDash is for a terminated instance, which has no address.
func orDash(a netip.Addr) string {
	if !a.IsValid() {
		return "-"
	}
	return a.String()
}

func daemons(ds []guest.DaemonStatus) string {
	var out []string
	for _, d := range ds {
		state := "running"
		if !d.Running {
			state = "ended: " + d.Exit.String()
		}
		out = append(out, d.Name+" "+state)
	}
	return cmp.Or(strings.Join(out, ", "), "-")
}

// addresses shortens a run of consecutive addresses to first-last.
func addresses(addrs []netip.Addr) string {
	sorted := slices.SortedFunc(slices.Values(addrs), netip.Addr.Compare)
	var runs []string
	for i := 0; i < len(sorted); {
		j := i
		for j+1 < len(sorted) && sorted[j].Next() == sorted[j+1] {
			j++
		}
		run := sorted[i].String()
		if j > i {
			first, last := sorted[i].As4(), sorted[j].As4()
			if [3]byte(first[:]) == [3]byte(last[:]) {
				run += fmt.Sprintf("-%d", last[3])
			} else {
				run += "-" + sorted[j].String()
			}
		}
		runs = append(runs, run)
		i = j + 1
	}
	return cmp.Or(strings.Join(runs, ","), "-")
}

func list(prefixes []netip.Prefix) string {
	var out []string
	for _, p := range prefixes {
		out = append(out, p.String())
	}
	return cmp.Or(strings.Join(out, ","), "-")
}

func drops(m map[string]uint64) string {
	var out []string
	for reason, n := range m {
		out = append(out, fmt.Sprintf("%s %d", reason, n))
	}
	slices.Sort(out)
	return cmp.Or(strings.Join(out, ", "), "-")
}
