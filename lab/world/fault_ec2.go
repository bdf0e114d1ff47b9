package world

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/fairway-cni/fairway/lab/ec2sim"
	"github.com/fairway-cni/fairway/lab/fabric"
)

// EC2Faults is what goes wrong on purpose with EC2's API and with the metadata
// services of instances.
type EC2Faults struct {
	Actions  []ec2sim.FaultStatus     `json:"ec2,omitempty"`
	Outage   *ec2sim.Outage           `json:"outage,omitempty"`
	Metadata map[string]MetadataFault `json:"imds,omitempty"` // by instance ID
}

// The modes of a [MetadataFault].
const (
	MetadataGone  = "gone"  // connections are refused, or broken off where one is there
	MetadataStale = "stale" // it says what it said when the fault began
)

// MetadataFault is what is wrong with an instance's metadata service.
type MetadataFault struct {
	Mode  string        `json:"mode,omitempty"`
	Delay time.Duration `json:"delay,omitempty"` // nanoseconds, of every answer

	frozen ec2sim.Snapshot // while it is stale
}

func (f MetadataFault) check() error {
	switch {
	case f.Mode != "" && f.Mode != MetadataGone && f.Mode != MetadataStale:
		return fmt.Errorf("%w: metadata service %q: must be %s or %s", ec2sim.ErrFault, f.Mode, MetadataGone, MetadataStale)
	case f.Delay < 0:
		return fmt.Errorf("%w: delay %s: must not be negative", ec2sim.ErrFault, f.Delay)
	case f.Mode == "" && f.Delay == 0:
		return fmt.Errorf("%w: metadata service: neither %s nor %s nor a delay", ec2sim.ErrFault, MetadataGone, MetadataStale)
	}
	return nil
}

// SetMetadataFault makes the metadata service of an instance, meant by name or
// ID, go wrong, in place of what was wrong with it. It returns when that is so.
func (l *Lab) SetMetadataFault(ctx context.Context, instance string, f MetadataFault) error {
	if err := f.check(); err != nil {
		return err
	}
	return l.order(ctx, "fault imds", instance, func(id string) error {
		if f.Mode == MetadataStale {
			f.frozen = l.seen(id)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.ill[id] = f
		return nil
	})
}

// ClearMetadataFault ends what is wrong with the metadata service of an instance.
func (l *Lab) ClearMetadataFault(ctx context.Context, instance string) error {
	return l.order(ctx, "clear fault imds", instance, func(id string) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.ill, id)
		return nil
	})
}

// ClearFaults ends all that goes wrong on purpose.
func (l *Lab) ClearFaults(ctx context.Context) error {
	l.mu.Lock()
	ill := maps.Clone(l.ill)
	clear(l.ill)
	l.mu.Unlock()
	l.cloud.ClearFaults()
	errs := []error{l.fabric.SetFaults(ctx, fabric.Faults{})}
	if len(ill) > 0 {
		errs = append(errs, l.order(ctx, "clear", "faults", nil))
	}
	return errors.Join(errs...)
}

func (l *Lab) illness(instance string) MetadataFault {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ill[instance]
}

func (l *Lab) ec2Faults() EC2Faults {
	s := EC2Faults{Actions: l.cloud.Faults()}
	if o := l.cloud.Outage(); o != (ec2sim.Outage{}) {
		s.Outage = &o
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s.Metadata = maps.Clone(l.ill)
	return s
}

// shown is what the metadata service of an instance goes by.
func (l *Lab) shown(instance string) ec2sim.Snapshot {
	if f := l.illness(instance); f.Mode == MetadataStale {
		return f.frozen
	}
	return l.seen(instance)
}

// troubled is a metadata service with its fault. The connections that a client
// has when its service goes are broken off at their next request.
func (l *Lab) troubled(instance string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f := l.illness(instance)
		if f.Mode == MetadataGone {
			panic(http.ErrAbortHandler)
		}
		if f.Delay > 0 {
			select {
			case <-time.After(f.Delay):
			case <-r.Context().Done():
				return
			}
		}
		h.ServeHTTP(w, r)
	})
}

// outageRequest begins an outage by the control socket.
type outageRequest struct {
	Kind string        `json:"kind"`
	For  time.Duration `json:"for,omitempty"` // nanoseconds; 0: until it is cleared
}

// ec2FaultRoutes adds to the control socket:
//
//	DELETE /faults                     ends all that goes wrong on purpose
//	PUT    /faults/ec2                 sets the fault of an action, or of a pattern
//	DELETE /faults/ec2?action=PATTERN  ends it; without an action, those of all
//	PUT    /faults/outage              begins an outage of the API
//	DELETE /faults/outage              ends it
//	PUT    /faults/imds/{instance}     sets the fault of a metadata service
//	DELETE /faults/imds/{instance}     ends it
//	POST   /take/eni/{eni}             takes an ENI away
//	POST   /take/address/{address}?eni=ENI
func (l *Lab) ec2FaultRoutes(mux *http.ServeMux) {
	mux.HandleFunc("DELETE /faults", func(w http.ResponseWriter, r *http.Request) { answer(w, l.ClearFaults(r.Context())) })
	mux.HandleFunc("PUT /faults/ec2", func(w http.ResponseWriter, r *http.Request) {
		var f ec2sim.Fault
		if readJSON(w, r, &f) {
			answer(w, l.cloud.SetFault(f))
		}
	})
	mux.HandleFunc("DELETE /faults/ec2", func(w http.ResponseWriter, r *http.Request) {
		action := r.URL.Query().Get("action")
		for _, f := range l.cloud.Faults() {
			if action == "" {
				l.cloud.ClearFault(f.Action)
			}
		}
		if action != "" && !l.cloud.ClearFault(action) {
			answer(w, fmt.Errorf("%w: no fault is set for %q", ec2sim.ErrFault, action))
		}
	})
	mux.HandleFunc("PUT /faults/outage", func(w http.ResponseWriter, r *http.Request) {
		var o outageRequest
		if readJSON(w, r, &o) {
			answer(w, l.cloud.SetOutage(o.Kind, o.For))
		}
	})
	mux.HandleFunc("DELETE /faults/outage", func(http.ResponseWriter, *http.Request) { l.cloud.ClearOutage() })
	mux.HandleFunc("PUT /faults/imds/{instance}", func(w http.ResponseWriter, r *http.Request) {
		var f MetadataFault
		if readJSON(w, r, &f) {
			answer(w, l.SetMetadataFault(r.Context(), r.PathValue("instance"), f))
		}
	})
	mux.HandleFunc("DELETE /faults/imds/{instance}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, l.ClearMetadataFault(r.Context(), r.PathValue("instance")))
	})
	mux.HandleFunc("POST /take/eni/{eni}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, l.cloud.TakeENI(r.PathValue("eni")))
	})
	mux.HandleFunc("POST /take/address/{address}", func(w http.ResponseWriter, r *http.Request) {
		a, err := netip.ParseAddr(r.PathValue("address"))
		if err != nil {
			answer(w, fmt.Errorf("%w: %w", ec2sim.ErrFault, err))
			return
		}
		answer(w, l.cloud.TakeAddress(a, r.URL.Query().Get("eni")))
	})
}

// readJSON reads a control request, or answers what is wrong with it.
func readJSON(w http.ResponseWriter, r *http.Request, v any) bool {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxFaults))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

func (r *Remote) put(ctx context.Context, path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write fault: %w", err)
	}
	_, err = r.send(ctx, http.MethodPut, path, bytes.NewReader(b))
	return err
}

// ClearFaults ends all that goes wrong on purpose.
func (r *Remote) ClearFaults(ctx context.Context) error {
	_, err := r.call(ctx, http.MethodDelete, "/faults")
	return err
}

// SetEC2Fault sets the fault of an action of EC2's API.
func (r *Remote) SetEC2Fault(ctx context.Context, f ec2sim.Fault) error {
	return r.put(ctx, "/faults/ec2", f)
}

// ClearEC2Fault ends the fault of an action; of all where action is empty.
func (r *Remote) ClearEC2Fault(ctx context.Context, action string) error {
	_, err := r.call(ctx, http.MethodDelete, "/faults/ec2?"+url.Values{"action": {action}}.Encode())
	return err
}

// SetOutage begins an outage of EC2's API; last is zero where it has no end.
func (r *Remote) SetOutage(ctx context.Context, kind string, last time.Duration) error {
	return r.put(ctx, "/faults/outage", outageRequest{kind, last})
}

// ClearOutage ends the outage of EC2's API.
func (r *Remote) ClearOutage(ctx context.Context) error {
	_, err := r.call(ctx, http.MethodDelete, "/faults/outage")
	return err
}

// SetMetadataFault and ClearMetadataFault are those of [Lab].
func (r *Remote) SetMetadataFault(ctx context.Context, instance string, f MetadataFault) error {
	return r.put(ctx, "/faults/imds/"+url.PathEscape(instance), f)
}

func (r *Remote) ClearMetadataFault(ctx context.Context, instance string) error {
	_, err := r.call(ctx, http.MethodDelete, "/faults/imds/"+url.PathEscape(instance))
	return err
}

// TakeENI takes an ENI away behind its node's back.
func (r *Remote) TakeENI(ctx context.Context, eni string) error {
	_, err := r.call(ctx, http.MethodPost, "/take/eni/"+url.PathEscape(eni))
	return err
}

// TakeAddress takes a secondary address, or the prefix that it is in, away from
// its ENI; eni may be empty where only one has it.
func (r *Remote) TakeAddress(ctx context.Context, a netip.Addr, eni string) error {
	_, err := r.call(ctx, http.MethodPost, "/take/address/"+url.PathEscape(a.String())+"?"+url.Values{"eni": {eni}}.Encode())
	return err
}
