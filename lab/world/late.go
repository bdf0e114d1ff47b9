package world

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/fabric"
)

// What comes late, or is old, in a lab whose World says so. EC2's own lag is
// ec2sim's; here is what follows from it outside of the API:
//
//	AttachNetworkInterface   attached          device           in the metadata
//	         |------------------|-----------------|----------------------|
//	                  attach, half of it           imdsLag, half or more

// arrived takes the ENIs whose devices are not to be there yet out of the
// topology's guests.
func arrived(t fabric.Topology, snap ec2sim.Snapshot, now time.Time) fabric.Topology {
	coming := make(map[string]bool)
	for _, e := range snap.Interfaces {
		if e.Attachment != nil && e.Attachment.DeviceAt.After(now) {
			coming[e.ID] = true
		}
	}
	for _, v := range t.VPCs {
		for i := range v.ENIs {
			if e := &v.ENIs[i]; coming[e.ID] {
				e.Guest, e.Device = "", ""
			}
		}
	}
	return t
}

// wake ends when EC2's state will change by itself, or never.
func (l *Lab) wake() <-chan time.Time {
	next := l.cloud.Next()
	if next.IsZero() {
		return nil
	}
	return time.After(time.Until(next))
}

// seen is what an instance's metadata service knows: the state of a while ago,
// which is the same for the instance all the time, but never of before its
// launch: what came with that is there at boot.
func (l *Lab) seen(instance string) ec2sim.Snapshot {
	snap := l.cloud.Snapshot()
	lag := metadataLag(l.cfg.World.EC2, instance)
	k := slices.IndexFunc(snap.Instances, func(i ec2sim.Instance) bool { return i.ID == instance })
	if lag == 0 || k < 0 {
		return snap
	}
	at := time.Now().Add(-lag)
	if launch := snap.Instances[k].LaunchedAt; at.Before(launch) {
		at = launch
	}
	return l.cloud.SnapshotAt(at)
}

// metadataLag is from half of what the World says to all of it.
func metadataLag(e EC2, instance string) time.Duration {
	h := fnv.New64a()
	fmt.Fprint(h, e.Seed, instance)
	const parts = 1 << 16
	return e.IMDSLag/2 + e.IMDSLag/2*time.Duration(h.Sum64()%parts)/parts
}

// callRoutes adds to the control socket:
//
//	GET /calls?since=1m  the calls of EC2's API, of the last minute
func (l *Lab) callRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /calls", func(w http.ResponseWriter, r *http.Request) {
		var since time.Time
		if text := r.URL.Query().Get("since"); text != "" {
			d, err := time.ParseDuration(text)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			since = time.Now().Add(-d)
		}
		l.writeJSON(w, l.cloud.Calls(since))
	})
}

// Calls gives the calls of EC2's API that came in the time that has passed
// since; all that the lab remembers where it is zero.
func (r *Remote) Calls(ctx context.Context, last time.Duration) ([]ec2sim.Call, error) {
	query := url.Values{}
	if last > 0 {
		query.Set("since", last.String())
	}
	b, err := r.call(ctx, http.MethodGet, "/calls?"+query.Encode())
	if err != nil {
		return nil, err
	}
	var calls []ec2sim.Call
	if err := json.Unmarshal(b, &calls); err != nil {
		return nil, fmt.Errorf("read calls: %w", err)
	}
	return calls, nil
}
