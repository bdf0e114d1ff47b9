package world

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/fabric"
	"github.com/fairway-cni/fairway/lab/fabric/relay"
)

// FaultStatus is what goes wrong in a lab on purpose, and what came of it.
type FaultStatus struct {
	fabric.Faults
	Stats map[string]relay.Stats `json:"stats,omitempty"` // by ENI
	EC2Faults
}

// maxFaults bounds what a control request may bring, in bytes.
const maxFaults = 4 << 20

// faultRoutes adds to the control socket:
//
//	GET  /faults                        what goes wrong on purpose
//	PUT  /faults                        all that should with packets; replaces
//	POST /instances/{name}/kill|reboot  power
func (l *Lab) faultRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /faults", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		s := FaultStatus{Faults: l.fabric.Faults(), Stats: l.fabric.FaultStats(), EC2Faults: l.ec2Faults()}
		if err := json.NewEncoder(w).Encode(s); err != nil {
			l.cfg.Log.Error("answer faults", "error", err)
		}
	})
	mux.HandleFunc("PUT /faults", func(w http.ResponseWriter, r *http.Request) {
		var faults fabric.Faults
		if readJSON(w, r, &faults) {
			answer(w, l.fabric.SetFaults(r.Context(), faults))
		}
	})
	l.ec2FaultRoutes(mux)
	for verb, do := range map[string]func(context.Context, string) error{"kill": l.Kill, "reboot": l.Reboot} {
		mux.HandleFunc("POST /instances/{name}/"+verb, func(w http.ResponseWriter, r *http.Request) {
			answer(w, do(r.Context(), r.PathValue("name")))
		})
	}
}

func answer(w http.ResponseWriter, err error) {
	var refused *ec2sim.Error
	switch {
	case err == nil:
	case errors.As(err, &refused), errors.Is(err, ec2sim.ErrFault), errors.Is(err, fabric.ErrFault), errors.Is(err, ErrNoInstance), errors.Is(err, ErrNoFlowLog),
		errors.Is(err, fabric.ErrUnknownENI), errors.Is(err, fabric.ErrNotPlugged):
		http.Error(w, err.Error(), http.StatusBadRequest)
	default:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// Faults asks the lab what goes wrong on purpose.
func (r *Remote) Faults(ctx context.Context) (FaultStatus, error) {
	var s FaultStatus
	b, err := r.call(ctx, http.MethodGet, "/faults")
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("read faults: %w", err)
	}
	return s, nil
}

// SetFaults replaces what goes wrong on purpose.
func (r *Remote) SetFaults(ctx context.Context, faults fabric.Faults) error {
	b, err := json.Marshal(faults)
	if err != nil {
		return fmt.Errorf("write faults: %w", err)
	}
	_, err = r.send(ctx, http.MethodPut, "/faults", bytes.NewReader(b))
	return err
}

// Kill and Reboot are those of [Lab].
func (r *Remote) Kill(ctx context.Context, instance string) error {
	_, err := r.call(ctx, http.MethodPost, "/instances/"+url.PathEscape(instance)+"/kill")
	return err
}

func (r *Remote) Reboot(ctx context.Context, instance string) error {
	_, err := r.call(ctx, http.MethodPost, "/instances/"+url.PathEscape(instance)+"/reboot")
	return err
}
