package cniapi

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// agent answers each connection with serve, and gives the path of its socket.
func agent(t *testing.T, serve func(*net.UnixConn)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.AcceptUnix()
			if err != nil {
				return
			}
			serve(conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return path
}

func frame(text string) []byte {
	b := make([]byte, HeaderLen)
	PutLength(b, len(text))
	return append(b, text...)
}

// take reads one request.
func take(conn *net.UnixConn) {
	header := make([]byte, HeaderLen)
	if _, err := io.ReadFull(conn, header); err != nil {
		return
	}
	n, _ := Length(header)
	io.ReadFull(conn, make([]byte, n))
}

func TestClient(t *testing.T) {
	const ok = `{"version":1,"exit":0,"result":{}}`
	tests := []struct {
		name  string
		serve func(*net.UnixConn)
		want  error
		text  string
	}{
		{name: "answer", serve: func(c *net.UnixConn) { take(c); c.Write(frame(ok)) }},
		{name: "answer in pieces", serve: func(c *net.UnixConn) {
			take(c)
			for _, b := range frame(ok) {
				c.Write([]byte{b})
			}
		}},
		{name: "answer before the request is read", serve: func(c *net.UnixConn) { c.Write(frame(ok)) }},
		{name: "no answer", serve: func(c *net.UnixConn) { take(c) }, want: ErrNoAnswer, text: "connection closed"},
		{name: "cut in the length", serve: func(c *net.UnixConn) { take(c); c.Write(frame(ok)[:2]) }, want: ErrNoAnswer},
		{name: "cut in the frame", serve: func(c *net.UnixConn) { take(c); c.Write(frame(ok)[:20]) }, want: ErrNoAnswer, text: "34 bytes"},
		{name: "hangs", serve: func(c *net.UnixConn) { take(c); io.Copy(io.Discard, c) }, want: ErrNoAnswer, text: "time is up"},
		{name: "hangs without reading", serve: func(c *net.UnixConn) { waitClosed(c) }, want: ErrNoAnswer, text: "time is up"},
		{name: "too large", serve: func(c *net.UnixConn) { take(c); c.Write([]byte{0, 16, 0, 1}) }, want: ErrGarbage, text: "1048577"},
		{name: "another protocol", serve: func(c *net.UnixConn) { take(c); c.Write([]byte("HTTP/1.1 400\r\n")) }, want: ErrGarbage},
		{name: "not JSON", serve: func(c *net.UnixConn) { take(c); c.Write(frame("hello")) }, want: ErrGarbage, text: "at offset 0"},
	}
	// Large enough that a socket which nobody reads does not take it.
	req := Request{Command: CommandStatus, Config: []byte(`"` + strings.Repeat("a", 1<<19) + `"`)}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := Client{Socket: agent(t, tt.serve), Answer: 200 * time.Millisecond}
			if tt.want == nil {
				c.Answer = time.Minute
			}
			reply, err := c.Do(req)
			if tt.want == nil {
				if err != nil || string(reply.Result) != "{}" {
					t.Errorf("reply %+v, %v", reply, err)
				}
				return
			}
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %v, want %v with %q", err, tt.want, tt.text)
			}
		})
	}
}

// waitClosed returns when the other end has closed, without reading.
func waitClosed(c *net.UnixConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	raw.Read(func(fd uintptr) bool {
		// Every read would take bytes; a peek at the last of them does not tell
		// the end. A write does: it fails once nobody can read it.
		_, err := syscall.SendmsgN(int(fd), nil, nil, nil, syscall.MSG_NOSIGNAL)
		return err != nil
	})
}

func TestClientAway(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	for _, path := range []string{filepath.Join(dir, "none"), stale, dir} {
		_, err := Client{Socket: path, Connect: 50 * time.Millisecond, Answer: time.Second}.Do(Request{})
		if !errors.Is(err, ErrAway) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v, want %v with the path", path, err, ErrAway)
		}
	}
}

// TestClientWaits: an agent that comes back while the plugin tries is reached.
func TestClientWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	var reply Reply
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		reply, err = Client{Socket: path, Connect: time.Minute, Answer: time.Minute}.Do(Request{Command: CommandDel})
	}()
	ln, lerr := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if lerr != nil {
		t.Fatal(lerr)
	}
	defer ln.Close()
	conn, aerr := ln.AcceptUnix()
	if aerr != nil {
		t.Fatal(aerr)
	}
	take(conn)
	conn.Write(frame(`{"version":1,"exit":1,"error":{"code":7,"msg":"m"}}`))
	conn.Close()
	<-done
	if err != nil || reply.Err == nil || reply.Err.Code != 7 {
		t.Errorf("reply %+v, %v", reply, err)
	}
}

func TestPatience(t *testing.T) {
	for command, most := range map[string]time.Duration{
		CommandAdd: 90 * time.Second, CommandCheck: 90 * time.Second, CommandGC: 90 * time.Second, // the kubelet's limit is 2 minutes
		CommandDel: 10 * time.Second, CommandStatus: 10 * time.Second,
	} {
		connect, answer := Patience(command)
		if answer < 2*time.Second || connect+answer > most {
			t.Errorf("%s waits %s and %s, at most %s in all", command, connect, answer, most)
		}
	}
	if connect, _ := Patience(CommandDel); connect != 2*time.Second {
		t.Errorf("DEL tries to connect for %s, want 2s", connect)
	}
}
