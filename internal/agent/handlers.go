package agent

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/edge/cniapi"
	"github.com/fairway-cni/fairway/internal/edge/cniapi/cniserver"
	"github.com/fairway-cni/fairway/internal/edge/kernel"
)

// handlers answer the CNI plugin. They run in a goroutine per call and touch
// nothing themselves: they send functions to the node loop.
type handlers struct {
	cfg    Config
	log    *slog.Logger
	self   identity
	loop   *nodeLoop
	supply *supply
}

func (h *handlers) handle(ctx context.Context, c *cniserver.Call) cniserver.Reply {
	switch c.Command {
	case cniapi.CommandAdd:
		return h.add(ctx, c)
	case cniapi.CommandDel:
		return h.fail(c, h.do(ctx, func(n *nodeState) error {
			defer h.supply.wake() // more may be given now, or wanted elsewhere
			return n.del(owner(c))
		}))
	case cniapi.CommandCheck:
		return h.fail(c, h.do(ctx, func(n *nodeState) error { return n.check(n.request(c)) }))
	case cniapi.CommandGC:
		var valid []ipam.Owner
		for _, a := range c.ValidAttachments {
			valid = append(valid, ipam.Owner{ContainerID: a.ContainerID, IfName: a.IfName})
		}
		return h.fail(c, h.do(ctx, func(n *nodeState) error { return n.gc(valid) }))
	case cniapi.CommandStatus:
		return h.fail(c, h.do(ctx, func(*nodeState) error { return nil }))
	}
	return cniserver.Reply{Err: cniserver.Internal(errors.New("no such command: " + c.Command))}
}

func owner(c *cniserver.Call) ipam.Owner {
	return ipam.Owner{ContainerID: c.ContainerID, IfName: c.IfName}
}

// request is what the node loop needs of a call.
func (n *nodeState) request(c *cniserver.Call) request {
	return request{
		owner: owner(c), netnsPath: c.NetNSPath, netns: c.NetNS, netlink: c.Netlink,
		podName: c.Args.PodName, podNS: c.Args.PodNamespace, mtu: cmp.Or(c.Network.MTU, n.cfg.podMTU()),
	}
}

// do runs f in the node loop. A change that has begun is finished.
func (h *handlers) do(ctx context.Context, f func(*nodeState) error) error {
	var err error
	if lost := h.loop.do(ctx, func(n *nodeState) { err = f(n) }); lost != nil {
		return lost
	}
	return err
}

// add gives the pod an address. If none is free it waits for one that is on its
// way, or about to be free; a node that can have no more says so at once.
func (h *handlers) add(ctx context.Context, c *cniserver.Call) cniserver.Reply {
	deadline := time.NewTimer(h.cfg.AddWait)
	defer deadline.Stop()
	waiting := false
	defer func() {
		if waiting {
			h.supply.waitDone()
		}
	}()
	for {
		news := h.supply.news()
		var p node.Attachment
		var r request
		var o outlook
		err := h.do(ctx, func(n *nodeState) (err error) {
			r = n.request(c)
			p, err = n.add(r)
			exhausted := errors.Is(err, ipam.ErrExhausted)
			switch {
			case exhausted && !waiting:
				waiting = true
				h.supply.wait()
			case !exhausted && waiting:
				// Here and not when the call ends: a plan that is made in
				// between would ask EC2 for a pod that is served.
				waiting = false
				h.supply.waitDone()
			}
			if exhausted {
				// From the same state that had no address: a moment later
				// there may be one, and nothing left to plan.
				o = h.outlook(n)
			}
			return err
		})
		if !errors.Is(err, ipam.ErrExhausted) {
			h.supply.wake()
			if err != nil {
				return h.fail(c, err)
			}
			return cniserver.Reply{Result: result(c, p, r.mtu)}
		}
		if !o.hope {
			return cniserver.Reply{Err: cniserver.NoAddress(o.refusal, "the runtime tries the pod again; EC2 shows the node's ENIs and addresses")}
		}
		var cooled <-chan time.Time
		if !o.free.IsZero() {
			cooled = time.After(time.Until(o.free))
		}
		select {
		case <-news:
		case <-cooled:
		case <-deadline.C:
			return cniserver.Reply{Err: cniserver.NoAddress(o.refusal, "waited "+h.cfg.AddWait.String()+" for one; the runtime tries the pod again")}
		case <-ctx.Done():
			return cniserver.Reply{Err: cniserver.TryAgainLater("the agent is ending", ctx.Err().Error())}
		}
	}
}

// outlook is what an ADD that found no address has to expect.
type outlook struct {
	refusal string    // why there is none
	hope    bool      // whether one may come within the time that an ADD waits
	free    time.Time // when the next one has cooled down, if that is in time
}

func (h *handlers) outlook(n *nodeState) outlook {
	now := n.now()
	s, t := h.supply.state(n, h.self), targets(h.cfg)
	o := outlook{refusal: ipam.Refusal(s, t, now)}
	if next := s.Pool.NextFree; !next.IsZero() && next.Sub(now) < h.cfg.AddWait {
		o.free = next
	}
	o.hope = !o.free.IsZero() || len(s.InFlight) > 0 || len(ipam.Plan(s, t, now)) > 0
	return o
}

// fail turns an error into the plugin's; nil is success. Errors that are
// nobody's mistake are logged here, as the plugin has no log.
func (h *handlers) fail(c *cniserver.Call, err error) cniserver.Reply {
	switch {
	case err == nil:
		return cniserver.Reply{}
	case errors.Is(err, kernel.ErrIfNameTaken):
		return cniserver.Reply{Err: cniserver.InterfaceTaken(c)}
	case errors.Is(err, errUnknownAttachment):
		return cniserver.Reply{Err: cniserver.UnknownContainer(c)}
	case errors.Is(err, errNotReady), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return cniserver.Reply{Err: cniserver.TryAgainLater(err.Error(), "")}
	}
	h.log.Error("cni call failed", "command", c.Command, "container", c.ContainerID, "interface", c.IfName,
		"pod", c.Args.PodNamespace+"/"+c.Args.PodName, "error", err)
	return cniserver.Reply{Err: cniserver.Internal(err)}
}

// result describes what was made: the node's device and the pod's.
func result(c *cniserver.Call, p node.Attachment, mtu int) *cniserver.Result {
	return &cniserver.Result{
		Interfaces: []cniserver.Interface{
			{Name: p.Veth, MAC: string(node.GatewayMAC), MTU: mtu},
			{Name: c.IfName, MAC: string(node.PodMAC(p.Addr)), MTU: mtu, Sandbox: c.NetNSPath},
		},
		IPs: []cniserver.IP{{Address: netip.PrefixFrom(p.Addr, p.Addr.BitLen()), Gateway: node.GatewayAddr, Interface: 1}},
		Routes: []cniserver.Route{
			{Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Gateway: node.GatewayAddr},
		},
	}
}
