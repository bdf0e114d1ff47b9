package agent

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/fairway-cni/fairway/internal/core/diff"
	"github.com/fairway-cni/fairway/internal/core/intent"
	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/edge/kernel"
	"github.com/fairway-cni/fairway/internal/edge/store"
)

// request is what an ADD or a CHECK brings.
type request struct {
	owner          ipam.Owner
	netnsPath      string
	netns, netlink *os.File
	podName, podNS string
	mtu            int // bytes
}

// add gives the pod interface an address and makes it work. It is idempotent
// per container and interface name.
func (n *nodeState) add(r request) (node.Attachment, error) {
	if p, ok := n.pods[r.owner]; ok && p.Wired {
		if err := n.kernel.Verify(n.wiring(p, r)); err == nil {
			return p, nil
		}
		// Half made, or in a namespace that is gone: make it again.
		if err := n.unwire(p); err != nil {
			return node.Attachment{}, err
		}
	}
	_, had := n.book.Held()[r.owner]
	held, err := n.book.Hold(store.Record{
		ContainerID: r.owner.ContainerID, IfName: r.owner.IfName, NetNS: r.netnsPath, MTU: r.mtu,
		HostVeth: node.VethName(n.cfg.VethPrefix, r.owner.ContainerID, r.owner.IfName),
		PodName:  r.podName, PodNamespace: r.podNS,
	})
	if err != nil {
		return node.Attachment{}, err
	}
	p := n.attachment(held)
	if p.Slot == 0 {
		err = fmt.Errorf("hold %s: %w", p.Addr, errNotReady)
	} else {
		err = n.attach(p, r)
	}
	if err != nil {
		if !had {
			n.book.Cancel(r.owner)
		}
		return node.Attachment{}, err
	}
	return n.pods[r.owner], nil
}

// attach makes the interface of an address that is held.
func (n *nodeState) attach(p node.Attachment, r request) error {
	p.Wired = true
	if err := n.kernel.Wire(n.wiring(p, r)); err != nil {
		return err
	}
	want := intent.Pod(n.withoutPods(), p)
	delta := diff.Compare(slices.DeleteFunc(slices.Clone(want), notLink), want) // the device is as it should be
	err := n.kernel.Apply(delta)
	if err != nil {
		// Something that the pod's objects refer to may be gone: mend, try again.
		n.reason = "a pod's objects were refused: " + err.Error()
		if err = n.converge(); err == nil {
			err = n.kernel.Apply(delta)
		}
	}
	if err != nil {
		return errors.Join(err, n.unwire(p))
	}
	n.pods[r.owner] = p
	return nil
}

func notLink(o node.Object) bool { return o.Rank() != node.RankLink }

// wiring has the MTU that the pod was made with, whatever new ones get today.
func (n *nodeState) wiring(p node.Attachment, r request) kernel.Wiring {
	if made := n.book.Held()[r.owner].MTU; made != 0 {
		r.mtu = made
	}
	return kernel.Wiring{Attachment: p, MTU: r.mtu, NetNS: r.netns, Netlink: r.netlink}
}

// del releases what the owner holds. That it holds nothing is success.
func (n *nodeState) del(owner ipam.Owner) error {
	p, ok := n.pods[owner]
	if !ok {
		p = node.Attachment{Veth: node.VethName(n.cfg.VethPrefix, owner.ContainerID, owner.IfName)}
	}
	if err := n.unwire(p); err != nil {
		return err
	}
	if err := n.book.Release(owner); err != nil {
		return err
	}
	delete(n.pods, owner)
	delete(n.gone, owner)
	return nil
}

// unwire stops delivery to and admission from the pod. The records are not
// touched.
func (n *nodeState) unwire(p node.Attachment) error {
	wired := p
	wired.Wired = true
	if p.Addr.IsValid() {
		// What is not there any more is no error: a device that went with its
		// namespace took its route along.
		if err := n.kernel.Apply(diff.Compare(intent.Pod(n.withoutPods(), wired), nil)); err != nil {
			return err
		}
	}
	if err := n.kernel.Unwire(p); err != nil {
		return err
	}
	if p, ok := n.pods[ipam.Owner{ContainerID: p.ContainerID, IfName: p.IfName}]; ok {
		p.Wired = false
		n.pods[ipam.Owner{ContainerID: p.ContainerID, IfName: p.IfName}] = p
	}
	return nil
}

// check compares one attachment with the kernel.
func (n *nodeState) check(r request) error {
	p, ok := n.pods[r.owner]
	if !ok {
		return fmt.Errorf("check %s: %w", r.owner, errUnknownAttachment)
	}
	errs := []error{n.kernel.Verify(n.wiring(p, r))}
	if p.Slot == 0 {
		errs = append(errs, fmt.Errorf("address %s is on none of this node's ENIs: EC2 has taken it away; the pod must be replaced", p.Addr))
	}
	// What the pod needs is its own and all that is the node's, but no other pod's.
	s := n.withoutPods()
	s.Pods = []node.Attachment{p}
	want := intent.Desired(s)
	have, err := n.kernel.Read(want)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, c := range diff.Compare(have, want) {
		if c.Verb != diff.Remove { // the others are not this pod's
			errs = append(errs, fmt.Errorf("the node's kernel differs: %s", c))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return errors.Join(err, n.explain(p, have))
	}
	return nil
}

// gc releases every attachment that the runtime does not list.
func (n *nodeState) gc(valid []ipam.Owner) error {
	var errs []error
	for owner := range n.pods {
		if !slices.Contains(valid, owner) {
			errs = append(errs, n.del(owner))
		}
	}
	return errors.Join(errs...)
}
