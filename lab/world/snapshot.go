package world

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/fairway-cni/fairway/lab/ec2sim"
)

func (l *Lab) snapshotRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /snapshot", func(w http.ResponseWriter, _ *http.Request) {
		l.writeJSON(w, l.cloud.Snapshot())
	})
}

// Snapshot asks for all that the lab's EC2 holds.
func (r *Remote) Snapshot(ctx context.Context) (ec2sim.Snapshot, error) {
	var s ec2sim.Snapshot
	b, err := r.call(ctx, http.MethodGet, "/snapshot")
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("read snapshot: %w", err)
	}
	return s, nil
}
