package world

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/fairway-cni/fairway/lab/fabric"
)

// maxCapture is how long a capture lasts that nothing else ends.
const maxCapture = 24 * time.Hour

// CaptureRequest says what of an ENI to capture.
type CaptureRequest struct {
	ENI     string // its ID
	Side    fabric.Side
	Packets int           // then it ends; 0: it does not
	For     time.Duration // after which it ends; 0: a day
}

func (c CaptureRequest) values() url.Values {
	return url.Values{
		"eni": {c.ENI}, "side": {strconv.Itoa(int(c.Side))}, "packets": {strconv.Itoa(c.Packets)}, "for": {c.For.String()},
	}
}

func parseCapture(v url.Values) (CaptureRequest, error) {
	c := CaptureRequest{ENI: v.Get("eni")}
	side, err := strconv.Atoi(v.Get("side"))
	if err != nil || side != int(fabric.GuestEnd) && side != int(fabric.FabricEnd) {
		return c, fmt.Errorf("side %q: no end of an eni", v.Get("side"))
	}
	c.Side = fabric.Side(side)
	if c.Packets, err = strconv.Atoi(v.Get("packets")); err != nil || c.Packets < 0 {
		return c, fmt.Errorf("packets %q: want 0 or more", v.Get("packets"))
	}
	if c.For, err = time.ParseDuration(v.Get("for")); err != nil || c.For < 0 || c.For > maxCapture {
		return c, fmt.Errorf("for %q: want at most %s", v.Get("for"), maxCapture)
	}
	return c, nil
}

// captureRoutes streams: the answer begins when the capture has, and ends when
// the capture does, or the one who asked goes away.
func (l *Lab) captureRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /capture", func(w http.ResponseWriter, r *http.Request) {
		c, err := parseCapture(r.URL.Query())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if c.For == 0 {
			c.For = maxCapture
		}
		out := &flushed{w: w, flush: http.NewResponseController(w).Flush}
		err = l.fabric.Capture(r.Context(), c.ENI, c.Side, out, fabric.Limit{Packets: c.Packets, Duration: c.For})
		switch {
		case err == nil || r.Context().Err() != nil:
		case !out.begun:
			answer(w, err)
		default:
			l.cfg.Log.Error("capture", "eni", c.ENI, "error", err)
			panic(http.ErrAbortHandler) // the only way to break off an answer that has begun
		}
	})
}

// flushed sends what is written at once: each write is one packet.
type flushed struct {
	w     io.Writer
	flush func() error
	begun bool
}

func (f *flushed) Write(b []byte) (int, error) {
	f.begun = true
	n, err := f.w.Write(b)
	if err != nil {
		return n, err
	}
	return n, f.flush()
}

// Capture starts a capture and gives its pcap file as it grows. The caller closes
// it, which ends the capture too.
func (r *Remote) Capture(ctx context.Context, c CaptureRequest) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://lab/capture?"+c.values().Encode(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, r.unreachable(err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		text, err := io.ReadAll(io.LimitReader(resp.Body, maxComplaint))
		return nil, errors.Join(fmt.Errorf("ask the lab: %s: %s", resp.Status, text), err)
	}
	return resp.Body, nil
}

// maxComplaint bounds what a lab says is wrong, in bytes.
const maxComplaint = 64 << 10
