package world

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/fabric"
)

// ErrNoFlowLog says that no flow log of EC2's is about what was asked for.
var ErrNoFlowLog = errors.New("no flow log")

// traffic is what the flow logs of an ENI together record.
type traffic struct{ accepted, rejected bool }

var nothing traffic

func logged(snap ec2sim.Snapshot, e ec2sim.NetworkInterface) traffic {
	var t traffic
	for _, l := range snap.FlowLogs {
		if l.Covers(e) {
			t.accepted = t.accepted || l.Traffic != ec2sim.TrafficReject
			t.rejected = t.rejected || l.Traffic != ec2sim.TrafficAccept
		}
	}
	return t
}

// FlowLog reads what the flow logs have recorded of one ENI, or with an empty ID
// of all, since the last time; now is the time of the call. The records are in
// the order of their start.
func (l *Lab) FlowLog(eni string, now time.Time) ([]fabric.FlowRecord, error) {
	var all []fabric.FlowRecord
	found := false
	snap := l.cloud.Snapshot()
	for _, e := range snap.Interfaces {
		t := logged(snap, e)
		if eni != "" && eni != e.ID || t == nothing {
			continue
		}
		found = true
		records, err := l.fabric.FlowLogs(e.ID, now)
		switch {
		case errors.Is(err, fabric.ErrUnknownENI), errors.Is(err, fabric.ErrNoFlowLog):
			continue // the loop has not come to it yet
		case err != nil:
			return nil, err
		}
		for _, r := range records {
			if r.Rejected && t.rejected || !r.Rejected && t.accepted {
				all = append(all, r)
			}
		}
	}
	if !found {
		if eni == "" {
			return nil, fmt.Errorf("there is %w", ErrNoFlowLog)
		}
		return nil, fmt.Errorf("%s has %w", eni, ErrNoFlowLog)
	}
	slices.SortStableFunc(all, func(a, b fabric.FlowRecord) int { return a.Start.Compare(b.Start) })
	return all, nil
}

func (l *Lab) flowLogRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /flowlog", func(w http.ResponseWriter, r *http.Request) {
		records, err := l.FlowLog(r.URL.Query().Get("eni"), time.Now())
		if err != nil {
			answer(w, err)
			return
		}
		l.writeJSON(w, records)
	})
}

// FlowLog asks for what [Lab.FlowLog] gives. What it gives is forgotten.
func (r *Remote) FlowLog(ctx context.Context, eni string) ([]fabric.FlowRecord, error) {
	b, err := r.call(ctx, http.MethodPost, "/flowlog?eni="+url.QueryEscape(eni))
	if err != nil {
		return nil, err
	}
	var records []fabric.FlowRecord
	if err := json.Unmarshal(b, &records); err != nil {
		return nil, fmt.Errorf("read flow log: %w", err)
	}
	return records, nil
}
