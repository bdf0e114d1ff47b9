package agent

import (
	"errors"
	"time"

	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/edge/cniapi"
	"github.com/fairway-cni/fairway/internal/edge/store"
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
	made, err := n.made()
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		owner := ipam.Owner{ContainerID: e.ContainerID, IfName: e.IfName}
		if made[owner].After(e.Time) {
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

// made says when each attachment was made, as the records have it.
func (n *nodeState) made() (map[ipam.Owner]time.Time, error) {
	records, err := n.store.All()
	var bad *store.BadRecordsError
	if err != nil && !errors.As(err, &bad) { // the bad ones were logged by restore
		return nil, err
	}
	m := make(map[ipam.Owner]time.Time)
	for _, r := range records {
		if r.Held() {
			m[ipam.Owner{ContainerID: r.ContainerID, IfName: r.IfName}] = r.CreatedAt
		}
	}
	return m, nil
}
