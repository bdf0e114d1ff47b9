package fabric

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"time"
)

// captured runs a capture while traffic does, and parses its file.
func captured(t *testing.T, l *filterLab, eni string, side Side, limit Limit, traffic func(stop func())) [][]byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := l.f.Capture(ctx, eni, side, w, limit)
		w.CloseWithError(err)
		done <- err
	}()
	header := make([]byte, 24)
	if _, err := io.ReadFull(r, header); err != nil {
		t.Fatal(err)
	}
	if want := []byte{0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0}; !bytes.Equal(header, want) {
		t.Errorf("header % x, want % x", header, want)
	}
	file := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(r)
		file <- b
	}()
	traffic(cancel)
	b := <-file
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	var frames [][]byte
	for len(b) > 0 {
		if len(b) < 16 {
			t.Fatalf("%d bytes behind the last record", len(b))
		}
		at := time.Unix(int64(binary.LittleEndian.Uint32(b)), int64(binary.LittleEndian.Uint32(b[4:])))
		n, length := binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
		if d := time.Since(at); d < 0 || d > time.Minute || n != length || int(n) > len(b)-16 {
			t.Fatalf("record of %v with %d of %d bytes, %d left", at, n, length, len(b)-16)
		}
		frames = append(frames, b[16:16+n])
		b = b[16+n:]
	}
	return frames
}

func TestCapture(t *testing.T) {
	l := newFilterLab(t, eniA(), eniB())
	l.b.Groups = []string{"sg-in"}
	l.vpc.Groups = []SecurityGroup{{ID: "sg-in", Ingress: []GroupRule{allow(UDP, 53, 53, "10.0.0.0/16")}}}
	l.sync()
	ask, reply, refused := l.ab(UDP, udp(4000, 53)), l.ba(UDP, udp(53, 4000)), l.ab(UDP, udp(4000, 54))
	traffic := func(stop func()) {
		l.dropped(refused, SGIngress, l.b)
		l.passes(ask)
		l.passes(reply)
	}
	tests := []struct {
		name string
		eni  *ENI
		side Side
		want [][]byte
	}{
		{"sender's guest", l.a, GuestEnd, [][]byte{refused, ask, reply}},
		{"sender's fabric end", l.a, FabricEnd, [][]byte{refused, ask, reply}},
		{"receiver's fabric end has what passed", l.b, FabricEnd, [][]byte{ask, reply}},
		{"receiver's guest", l.b, GuestEnd, [][]byte{ask, reply}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			frames := captured(t, l, tt.eni.ID, tt.side, Limit{Packets: len(tt.want)}, traffic)
			if len(frames) != len(tt.want) {
				t.Fatalf("%d frames, want %d", len(frames), len(tt.want))
			}
			for i, want := range tt.want {
				if got := frames[i]; len(got) != len(want) || !bytes.Equal(got[26:], want[26:]) {
					t.Errorf("frame %d: % x, want % x", i, got, want)
				}
			}
		})
	}
}

func TestCaptureLimits(t *testing.T) {
	l := newFilterLab(t, eniA(), eniB())
	ask := l.ab(UDP, udp(4000, 53))
	two := func(stop func()) { l.passes(ask); l.passes(ask) }
	if got := captured(t, l, l.a.ID, GuestEnd, Limit{Bytes: 2*(16+len(ask)) - 1}, two); len(got) != 1 {
		t.Errorf("by bytes: %d frames, want 1", len(got))
	}
	if got := captured(t, l, l.a.ID, GuestEnd, Limit{Packets: 5, Duration: 50 * time.Millisecond}, func(func()) {}); len(got) != 0 {
		t.Errorf("by duration: %d frames, want none", len(got))
	}
	if got := captured(t, l, l.a.ID, GuestEnd, Limit{Packets: 5}, func(stop func()) { stop() }); len(got) != 0 {
		t.Errorf("by context: %d frames, want none", len(got))
	}
}

type full struct{ room int }

func (w *full) Write(b []byte) (int, error) {
	if w.room -= len(b); w.room < 0 {
		return 0, io.ErrShortWrite
	}
	return len(b), nil
}

func TestCaptureErrors(t *testing.T) {
	l := newFilterLab(t, eniA(), eniB())
	l.vpc.ENIs = append(l.vpc.ENIs, testENI("eni-0ccccccccccccccc1", "", MAC{2, 0xc, 0, 0, 0, 1}, "10.0.3.10"))
	l.sync()
	ctx, one := context.Background(), Limit{Packets: 1}
	for name, tt := range map[string]struct {
		eni   string
		limit Limit
		want  error
	}{
		"no limit":    {eniA().ID, Limit{}, ErrNoLimit},
		"no such eni": {"eni-none", one, ErrUnknownENI},
		"not plugged": {"eni-0ccccccccccccccc1", one, ErrNotPlugged},
	} {
		if err := l.f.Capture(ctx, tt.eni, FabricEnd, io.Discard, tt.limit); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	if err := l.f.Capture(ctx, eniA().ID, GuestEnd, &full{}, one); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("no room for the header: %v", err)
	}
	// The device goes away under the capture.
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- l.f.Capture(ctx, eniA().ID, GuestEnd, w, one) }()
	if _, err := io.ReadFull(r, make([]byte, 24)); err != nil {
		t.Fatal(err)
	}
	l.vpc.ENIs[0].Guest = ""
	l.sync()
	if err := <-done; err == nil {
		t.Error("no error after the ENI was detached")
	}
	// A reboot, and then the end of the instance, each before the next Sync.
	newGuest(t, l.f, "i-b")
	if err := l.f.Capture(ctx, eniB().ID, GuestEnd, io.Discard, one); !errors.Is(err, ErrNotPlugged) {
		t.Errorf("guest is another one: %v, want %v", err, ErrNotPlugged)
	}
	l.f.RemoveGuest("i-b")
	if err := l.f.Capture(ctx, eniB().ID, GuestEnd, io.Discard, one); !errors.Is(err, ErrNotPlugged) {
		t.Errorf("guest is gone: %v, want %v", err, ErrNotPlugged)
	}
	if err := l.f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.f.Capture(ctx, eniA().ID, FabricEnd, io.Discard, one); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
