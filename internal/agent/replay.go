package agent

import (
	"errors"

	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/edge/cniapi"
)

// replay carries out the releases that the plugin left while no agent answered,
// before the first ADD is served: an address must not stay held by a pod that
// is gone, nor be released after it was given to the next one. A DEL names its
// container, so an entry that is carried out twice does nothing.
func (n *nodeState) replay() error {
	entries, err := cniapi.ReadSpool(n.cfg.SpoolDir)
	if err != nil {
		// What can be read is carried out; the rest was moved aside.
		n.log.Error("read spool", "error", err)
	}
	if len(entries) == 0 {
		return nil
	}
	var errs []error
	for _, e := range entries {
		owner := ipam.Owner{ContainerID: e.ContainerID, IfName: e.IfName}
		if n.book.Held()[owner].CreatedAt.After(n.clock.At(e.Time)) {
			n.log.Info("spool names an attachment that was made again since; it stays", "container", e.ContainerID, "interface", e.IfName)
		} else {
			if err := n.del(owner); err != nil {
				errs = append(errs, err)
				continue
			}
			n.log.Info("released as the spool says", "container", e.ContainerID, "interface", e.IfName)
		}
		errs = append(errs, cniapi.RemoveSpool(e))
	}
	return errors.Join(errs...)
}
