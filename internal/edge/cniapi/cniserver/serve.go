package cniserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/edge/cniapi"
)

// MaxCalls is how many calls run at once; more wait in the socket's backlog. A
// node has at most 737 pods, and what they wait for is one serial worker.
const MaxCalls = 256

// ioTimeout bounds the reading of a request and the writing of an answer. The
// plugin sends at once and waits in read.
const ioTimeout = 5 * time.Second

// Reply is what a handler answers: a result, for ADD only, or an error.
type Reply struct {
	Result *Result
	Err    *cniapi.Error
}

// Serve answers calls with h until ctx ends, then closes the listener, waits
// for the calls that run, and returns nil; any other return is an error of
// the listener, after the same wait.
//
// The context of a call ends with ctx, when the plugin has gone, and a second
// before the plugin will have given up waiting. A handler that has begun to change something finishes it
// (context.WithoutCancel); one that waits, for an address say, stops and says so.
func Serve(ctx context.Context, ln *net.UnixListener, h func(context.Context, *Call) Reply) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var calls sync.WaitGroup
	defer calls.Wait()
	context.AfterFunc(ctx, func() { ln.Close() }) // ends the wait in Accept
	defer ln.Close()

	places := make(chan struct{}, MaxCalls)
	for {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		conn, err := ln.AcceptUnix()
		if err != nil {
			<-places
			if ctx.Err() != nil {
				return nil
			}
			if !passing(err) {
				return fmt.Errorf("accept cni call: %w", err)
			}
			// Out of descriptors or memory: a call that ends will free some.
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		calls.Go(func() {
			defer func() { <-places }()
			defer conn.Close()
			serveConn(ctx, conn, h)
		})
	}
}

func passing(err error) bool {
	for _, e := range []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ECONNABORTED, unix.EINTR} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func serveConn(ctx context.Context, conn *net.UnixConn, h func(context.Context, *Call) Reply) {
	if err := checkPeer(conn); err != nil {
		answer(conn, nil, err)
		return
	}
	conn.SetReadDeadline(time.Now().Add(ioTimeout))
	msg, err := readMessage(conn)
	defer msg.close()
	if errors.Is(err, errNothing) {
		return
	}
	if err != nil {
		answer(conn, nil, &cniapi.Error{Code: cniapi.CodeDecode, Msg: "request to the agent: " + err.Error()})
		return
	}
	call, cniErr := decode(msg)
	if cniErr != nil {
		answer(conn, nil, cniErr)
		return
	}
	defer call.close()
	_, patience := cniapi.Patience(call.Command)
	ctx, cancel := context.WithTimeout(ctx, patience-time.Second)
	defer cancel()
	defer watchCaller(conn, cancel)()
	reply := h(ctx, call)
	if reply.Err != nil {
		answer(conn, nil, reply.Err)
		return
	}
	var result []byte
	if call.Command == cniapi.CommandAdd {
		result, cniErr = render(call, reply.Result)
	}
	answer(conn, result, cniErr)
}

// watchCaller ends the call's context when the plugin is gone: killed by a runtime
// that has given up, say. An ADD that waits for an address must not keep its place
// for nobody. The plugin sends nothing after its request, so whatever the socket
// has to say is the end. The result stops the watch; it is over when that returns.
func watchCaller(conn *net.UnixConn, gone func()) (stop func()) {
	conn.SetReadDeadline(time.Time{})
	over := make(chan struct{})
	go func() {
		defer close(over)
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			gone()
		}
	}()
	return func() {
		conn.SetReadDeadline(time.Unix(1, 0)) // long past: it ends the read
		<-over
	}
}

// checkPeer refuses everyone but root: who can hand in a namespace decides which
// pod an address goes to. The mode of the socket says the same; this also holds
// when somebody has changed that.
func checkPeer(conn *net.UnixConn) *cniapi.Error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Internal(err)
	}
	var peer *unix.Ucred
	var peerErr error
	err = raw.Control(func(fd uintptr) {
		peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, peerErr); err != nil {
		return Internal(fmt.Errorf("ask who the caller is: %w", err))
	}
	if peer.Uid != 0 {
		return &cniapi.Error{Code: cniapi.CodeRefused,
			Msg:     fmt.Sprintf("the agent takes CNI calls from uid 0 only, and this one is from uid %d (pid %d)", peer.Uid, peer.Pid),
			Details: "the plugin must be run by root, as container runtimes do"}
	}
	return nil
}

// reply is the message on the wire; package cniapi reads it with a reader of its own.
type reply struct {
	Version int             `json:"version"`
	Exit    int             `json:"exit"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *cniapi.Error   `json:"error,omitempty"`
}

// answer sends the reply. A client that is gone, or does not read, is not told:
// the runtime sees that its plugin has no answer, and follows with a DEL.
func answer(conn *net.UnixConn, result []byte, cniErr *cniapi.Error) {
	r := reply{Version: cniapi.ProtocolVersion, Result: result, Error: cniErr}
	if cniErr != nil {
		r.Exit, r.Result = 1, nil
	}
	text, err := json.Marshal(r)
	if err == nil && len(text) > cniapi.MaxFrame {
		err = fmt.Errorf("answer of %d bytes, at most %d", len(text), cniapi.MaxFrame)
	}
	if err != nil {
		// Of strings and numbers only: this can be written.
		text, _ = json.Marshal(reply{Version: cniapi.ProtocolVersion, Exit: 1, Error: Internal(err)})
	}
	frame := make([]byte, cniapi.HeaderLen, cniapi.HeaderLen+len(text))
	cniapi.PutLength(frame, len(text))
	conn.SetWriteDeadline(time.Now().Add(ioTimeout))
	conn.Write(append(frame, text...))
}
