package agent

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/fairway-cni/fairway/internal/agent/ipamd"
	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/edge/cniapi"
	"github.com/fairway-cni/fairway/internal/edge/cniapi/cniserver"
	"github.com/fairway-cni/fairway/internal/edge/kernel"
	"github.com/fairway-cni/fairway/internal/edge/metrics"
)

// handlers answer the CNI plugin. They run in a goroutine per call and touch
// nothing themselves: they send functions to the node loop.
type handlers struct {
	cfg     Config
	log     *slog.Logger
	loop    *nodeLoop
	metrics *metrics.Metrics // may be nil

	attached func() // a pod has got an address, or has given it back; may be nil
}

// handle answers a call, and has it counted.
func (h *handlers) handle(ctx context.Context, c *cniserver.Call) cniserver.Reply {
	began := time.Now()
	r := h.answer(ctx, c)
	if h.attached != nil && (c.Command == cniapi.CommandAdd || c.Command == cniapi.CommandDel) {
		h.attached()
	}
	h.metrics.Call(c.Command, callResult(r), time.Since(began))
	return r
}

func (h *handlers) answer(ctx context.Context, c *cniserver.Call) cniserver.Reply {
	switch c.Command {
	case cniapi.CommandAdd:
		return h.add(ctx, c)
	case cniapi.CommandDel:
		return h.fail(c, h.do(ctx, func(n *nodeState) error { return n.del(owner(c)) }))
	case cniapi.CommandCheck:
		return h.fail(c, h.do(ctx, func(n *nodeState) error { return n.check(n.request(c)) }))
	case cniapi.CommandGC:
		var valid []ipam.Owner
		for _, a := range c.ValidAttachments {
			valid = append(valid, ipam.Owner{ContainerID: a.ContainerID, IfName: a.IfName})
		}
		return h.fail(c, h.do(ctx, func(n *nodeState) error { return n.gc(valid) }))
	case cniapi.CommandStatus:
		return cniserver.Reply{} // whoever is answered has an agent that serves
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

// add gives the pod an address. If none is free it waits in its turn for one that
// is on its way, or about to be free; a node that can have no more says so at once.
func (h *handlers) add(ctx context.Context, c *cniserver.Call) cniserver.Reply {
	n := h.loop.state
	var p node.Attachment
	var r request
	err := n.book.Await(ctx, owner(c), h.cfg.AddWait, h.loop.doBook, func(*ipamd.Book) (err error) {
		r = n.request(c)
		p, err = n.add(r)
		return err
	})
	var empty *ipamd.EmptyError
	if errors.As(err, &empty) {
		h.metrics.Exhausted()
	}
	switch {
	case err == nil:
		return cniserver.Reply{Result: result(c, p, r.mtu)}
	case errors.As(err, &empty) && empty.Waited > 0:
		return cniserver.Reply{Err: cniserver.TryAgainLater(empty.Error(), "waited "+empty.Waited.String()+" for an address; the runtime tries the pod again")}
	case errors.As(err, &empty):
		return cniserver.Reply{Err: cniserver.NoAddress(strings.TrimPrefix(empty.Error(), "no free address: "), "the runtime tries the pod again; `fairway status` shows the node's ENIs and addresses")}
	case ctx.Err() != nil:
		return cniserver.Reply{Err: cniserver.TryAgainLater("the agent is ending, or the caller has gone", ctx.Err().Error())}
	}
	return h.fail(c, err)
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
