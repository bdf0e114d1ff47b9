package world

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/fabric"
	"github.com/fairway-cni/fairway/lab/guest"
	"github.com/fairway-cni/fairway/lab/imds"
)

// reconcile makes guests and fabric what the cloud says they are, and tells the
// cloud what came true. It does what it can and returns what it could not.
func (l *Lab) reconcile(ctx context.Context) error {
	snap := l.cloud.Snapshot()
	errs := []error{l.bootGuests(ctx, snap), l.stopGuests(snap)}
	result, err := l.fabric.Sync(ctx, l.powered(arrived(topology(snap, l.cfg.World.Internet.Hosts), snap, time.Now())))
	errs = append(errs, err, l.serveAll(snap))
	errs = append(errs, l.reportDevices(snap, result), l.startInstances(ctx, snap, result))
	return errors.Join(errs...)
}

func alive(i ec2sim.Instance) bool {
	return i.State == ec2sim.StatePending || i.State == ec2sim.StateRunning
}

// bootGuests starts the guests that are missing.
func (l *Lab) bootGuests(ctx context.Context, snap ec2sim.Snapshot) error {
	var errs []error
	for _, i := range snap.Instances {
		if alive(i) && i.Reboots > l.reboots[i.ID] {
			if err := l.powerOff(i.ID); err != nil {
				errs = append(errs, fmt.Errorf("reboot %s: %w", i.ID, err))
				continue
			}
			l.setOff(i.ID, false) // it was killed, perhaps
			l.reboots[i.ID] = i.Reboots
		}
		if !alive(i) || l.machine(i.ID) != nil || l.isOff(i.ID) {
			continue
		}
		host, _, _ := strings.Cut(i.PrivateDNSName, ".")
		g, err := guest.Start(ctx, guest.Config{
			ID: i.ID, Hostname: host,
			Dir: filepath.Join(l.cfg.Dir, i.ID), Cgroup: filepath.Join(l.cgroup, i.ID),
		})
		if err == nil {
			err = l.fabric.AddGuest(i.ID, g.NetNS())
			if err != nil {
				err = errors.Join(err, g.Stop())
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("boot %s: %w", i.ID, err))
			continue
		}
		m := &machine{Guest: g}
		if in := l.described(i); in != nil {
			m.daemons = in.Daemons
		}
		l.mu.Lock()
		l.machines[i.ID] = m
		l.mu.Unlock()
	}
	return errors.Join(errs...)
}

// described finds the World's description of an instance that came from it.
func (l *Lab) described(i ec2sim.Instance) *Instance {
	for k := range l.cfg.World.Instances {
		if in := &l.cfg.World.Instances[k]; in.Name == i.Name && l.born[i.ID] {
			return in
		}
	}
	return nil
}

// stopGuests ends the guests of instances that are being stopped or terminated.
func (l *Lab) stopGuests(snap ec2sim.Snapshot) error {
	var errs []error
	for _, i := range snap.Instances {
		gone := map[string]func(string) error{
			ec2sim.StateShuttingDown: l.cloud.InstanceTerminated, ec2sim.StateStopping: l.cloud.InstanceStopped,
		}[i.State]
		if gone == nil {
			continue
		}
		if err := l.powerOff(i.ID); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", i.ID, err))
			continue
		}
		l.setOff(i.ID, false) // a start of it is one
		errs = append(errs, gone(i.ID))
	}
	return errors.Join(errs...)
}

func (l *Lab) machine(id string) *machine {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.machines[id]
}

// firstSlot is where the primary ENI sits on the PCI bus of a Nitro instance;
// the name of the device in Amazon Linux 2023 follows from the slot.
const firstSlot = 5

func deviceName(a ec2sim.Attachment) string {
	if a.CardIndex == 0 {
		return fmt.Sprintf("ens%d", firstSlot+a.DeviceIndex)
	}
	return fmt.Sprintf("ens%dc%d", firstSlot+a.DeviceIndex, a.CardIndex)
}

// service is what is to listen somewhere in the fabric.
type service struct {
	listen  func() (net.Listener, error)
	handler func() http.Handler
}

// serveAll keeps the metadata service at every attached ENI and the EC2
// endpoint in every VPC.
func (l *Lab) serveAll(snap ec2sim.Snapshot) error {
	wanted := make(map[string]service)
	if l.cloud.Outage().Kind != ec2sim.OutageRefuse {
		for _, v := range snap.VPCs {
			wanted[v.ID] = service{
				listen:  func() (net.Listener, error) { return l.fabric.Listen(v.ID, EC2Addr) },
				handler: func() http.Handler { return l.cloud.In(v.Region) }, // for requests that are signed for no region
			}
		}
	}
	hops := make(map[string]int)
	for _, i := range snap.Instances {
		if alive(i) && !i.Metadata.Disabled && l.illness(i.ID).Mode != MetadataGone {
			hops[i.ID] = i.Metadata.HopLimit
		}
	}
	for _, e := range snap.Interfaces {
		if e.Attachment == nil || hops[e.Attachment.InstanceID] == 0 {
			continue
		}
		// The attachment is part of the key: after a move the same ENI speaks
		// for another instance, with another hop limit. That may change, too.
		id := e.Attachment.InstanceID
		wanted[fmt.Sprint(e.ID, " ", e.Attachment.ID, " ", hops[id])] = service{
			listen:  func() (net.Listener, error) { return l.fabric.ListenENI(e.ID, MetadataAddr, hops[id]) },
			handler: func() http.Handler { return l.metadataService(id) },
		}
	}
	var errs []error
	for key, ln := range l.services { // first: what comes may take their place
		if _, ok := wanted[key]; !ok {
			errs = append(errs, ignoreClosed(ln.Close()))
			delete(l.services, key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		if l.services[key] != nil {
			continue
		}
		ln, err := wanted[key].listen()
		if err != nil {
			errs = append(errs, fmt.Errorf("serve at %s: %w", key, err))
			continue
		}
		l.services[key] = ln
		go l.serve(ln, wanted[key].handler())
	}
	return errors.Join(errs...)
}

// metadataService is the one service of an instance, whichever of its ENIs a
// request comes by: a token is good at all of them.
func (l *Lab) metadataService(instance string) http.Handler {
	h := l.metadata[instance]
	if h == nil {
		h = imds.New(func() (imds.Metadata, bool) {
			m, ok := metadata(l.shown(instance), instance)
			m.Credentials = credentials(l.cloud, instance)
			return m, ok
		}, time.Now)
		h = l.troubled(instance, h)
		l.metadata[instance] = h
	}
	return h
}

// reportDevices tells the cloud which attachments have become real and which
// are gone. Those of an instance that is shutting down end with it, of which
// stopGuests tells: the same pass may have done so.
func (l *Lab) reportDevices(snap ec2sim.Snapshot, r fabric.Result) error {
	ends := make(map[string]bool)
	for _, i := range snap.Instances {
		ends[i.ID] = i.State == ec2sim.StateShuttingDown
	}
	var errs []error
	for _, e := range snap.Interfaces {
		a, plugged := e.Attachment, r.ENIs[e.ID].Plugged
		switch {
		case a == nil || ends[a.InstanceID]:
		case a.Status == ec2sim.StatusAttaching && plugged:
			errs = append(errs, l.cloud.DeviceAttached(a.ID))
		case a.Status == ec2sim.StatusDetaching && !plugged && r.ENIs[e.ID].Err == nil:
			errs = append(errs, l.cloud.DeviceDetached(a.ID))
		}
	}
	return errors.Join(errs...)
}

// startInstances does what an instance's own system does at boot, once its
// primary ENI is there, and starts the daemons that the World gives it.
func (l *Lab) startInstances(ctx context.Context, snap ec2sim.Snapshot, r fabric.Result) error {
	var errs []error
	for _, i := range snap.Instances {
		m := l.machine(i.ID)
		if !alive(i) || m == nil || m.booted {
			continue
		}
		k := slices.IndexFunc(snap.Interfaces, func(e ec2sim.NetworkInterface) bool {
			return e.Attachment != nil && e.Attachment.InstanceID == i.ID && e.Attachment.DeviceIndex == 0 && e.Attachment.CardIndex == 0
		})
		if k < 0 || !r.ENIs[snap.Interfaces[k].ID].Plugged {
			continue
		}
		if err := l.startInstance(ctx, m, snap, snap.Interfaces[k]); err != nil {
			errs = append(errs, fmt.Errorf("start %s: %w", i.ID, err))
			continue
		}
		m.booted = true
		if i.State == ec2sim.StatePending { // after a reboot it has been running all the time
			errs = append(errs, l.cloud.InstanceRunning(i.ID))
		}
	}
	return errors.Join(errs...)
}

func (l *Lab) startInstance(ctx context.Context, m *machine, snap ec2sim.Snapshot, primary ec2sim.NetworkInterface) error {
	k := slices.IndexFunc(snap.Subnets, func(s ec2sim.Subnet) bool { return s.ID == primary.SubnetID })
	subnet := snap.Subnets[k].CIDR
	if err := m.Configure(guest.Boot{
		MAC: net.HardwareAddr(primary.MAC), Address: netip.PrefixFrom(primary.Primary, subnet.Bits()),
		Gateway: subnet.Addr().Next(), MTU: fabric.DefaultMTU,
	}); err != nil {
		return err
	}
	if l.cfg.Image != nil {
		if err := l.cfg.Image(ctx, m.Client); err != nil {
			return fmt.Errorf("install image: %w", err)
		}
	}
	k = slices.IndexFunc(snap.VPCs, func(v ec2sim.VPC) bool { return v.ID == primary.VPCID })
	for len(m.daemons) > 0 {
		if err := l.startDaemon(ctx, m, snap.VPCs[k].Region, m.daemons[0]); err != nil {
			return err
		}
		m.daemons = m.daemons[1:]
	}
	return nil
}

// LogName is a daemon's log in the lab's directory.
func LogName(instanceID, daemon string) string { return instanceID + "-" + daemon + ".log" }

func (l *Lab) startDaemon(ctx context.Context, m *machine, region string, d Daemon) error {
	log, err := os.OpenFile(filepath.Join(l.cfg.Dir, LogName(m.ID(), d.Name)), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open log of daemon %s: %w", d.Name, err)
	}
	env := Env(region, l.cfg.Path)
	for k, v := range d.Env {
		env = append(env, k+"="+v)
	}
	_, err = m.StartDaemon(ctx, guest.Daemon{
		Name: d.Name, Argv: d.Command, Env: env, Dir: "/", Log: log, Caps: capabilityNumbers(d.Capabilities),
	})
	if err = errors.Join(err, log.Close()); err != nil {
		return fmt.Errorf("start daemon %s: %w", d.Name, err)
	}
	return nil
}

// Env is the environment of what runs in an instance: path comes first in its
// PATH, and any AWS program finds the lab's EC2.
func Env(region string, path []string) []string {
	dirs := append(slices.Clone(path), "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
	return []string{
		"PATH=" + strings.Join(dirs, ":"),
		"HOME=/root",
		"AWS_ENDPOINT_URL_EC2=http://" + EC2Addr.String(),
		"AWS_REGION=" + region,
		"AWS_DEFAULT_REGION=" + region,
	}
}
