package guest

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// The control protocol, one request per connection:
//
//	client -> init   frame: request  (+ 3 descriptors by SCM_RIGHTS: exec, daemon)
//	init -> client   frame: reply    {pid} or {error}
//	client -> init   frame: request  {op: signal}, any number      exec only
//	init -> client   frame: reply    {exit}                        exec only
//
// A frame is four bytes of length, big endian, then that many bytes of JSON.
const (
	maxFrame = 1 << 20 // bytes of JSON; argv and env of one command fit well
	maxFiles = 3       // stdin, stdout, stderr
)

var errFrame = errors.New("malformed frame")

type op string

const (
	opPing    op = "ping"    // is init there
	opExec    op = "exec"    // run, report the exit status, kill on disconnect
	opDaemon  op = "daemon"  // run under a name, survive the disconnect
	opDaemons op = "daemons" // list the daemons
	opWait    op = "wait"    // report the exit status of a daemon
	opSignal  op = "signal"  // to a daemon, or within exec to its process group
)

type request struct {
	Op     op        `json:"op"`
	Name   string    `json:"name,omitempty"`
	Argv   []string  `json:"argv,omitempty"`
	Env    []string  `json:"env,omitempty"`
	Dir    string    `json:"dir,omitempty"`
	Caps   []uintptr `json:"caps"` // null keeps all, [] keeps none
	Signal int       `json:"signal,omitempty"`
}

type reply struct {
	Error   string         `json:"error,omitempty"`
	Code    string         `json:"code,omitempty"`  // a key of codes
	Errno   int            `json:"errno,omitempty"` // the kernel's word, if it said one
	PID     int            `json:"pid,omitempty"`   // in the guest's PID namespace
	Exit    *ExitStatus    `json:"exit,omitempty"`
	Daemons []DaemonStatus `json:"daemons,omitempty"`
}

// codes carries this package's sentinels across the socket.
var codes = map[string]error{
	"no-daemon":      ErrNoDaemon,
	"daemon-running": ErrDaemonRunning,
}

// failure makes the reply that err becomes on the wire.
func failure(err error) reply {
	r := reply{Error: err.Error()}
	for code, sentinel := range codes {
		if errors.Is(err, sentinel) {
			r.Code = code
		}
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		r.Errno = int(errno)
	}
	return r
}

// remoteError is an error that init reported: its text as it was said, and a
// cause that errors.Is finds.
type remoteError struct {
	text  string
	cause error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.cause }

func (r reply) err() error {
	switch {
	case r.Error == "":
		return nil
	case codes[r.Code] != nil:
		return &remoteError{r.Error, codes[r.Code]}
	case r.Errno != 0:
		return &remoteError{r.Error, syscall.Errno(r.Errno)}
	}
	return errors.New(r.Error)
}

// encodeFrame gives the bytes of one frame.
func encodeFrame(v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode frame: %w", err)
	}
	if len(body) > maxFrame {
		return nil, fmt.Errorf("encode frame of %d bytes: %w: at most %d bytes of arguments and environment", len(body), errFrame, maxFrame)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...), nil
}

// readFrame reads one frame into v. A stream that ends before the first byte is
// io.EOF. Memory grows with the bytes that arrive, not with the length that is
// claimed.
func readFrame(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if err == io.EOF {
			return err
		}
		return fmt.Errorf("read frame length: %w", err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > maxFrame {
		return fmt.Errorf("read frame of %d bytes: %w: want 1 to %d", n, errFrame, maxFrame)
	}
	var body bytes.Buffer
	if _, err := io.CopyN(&body, r, int64(n)); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read frame of %d bytes: %w", n, err)
	}
	d := json.NewDecoder(&body)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("read frame: %w: %w", errFrame, err)
	}
	if d.More() {
		return fmt.Errorf("read frame: %w: bytes after the value", errFrame)
	}
	return nil
}

// brokeOff says that the other end of a connection has ended without a word. Which
// error that is depends on the moment: after it had read all (io.EOF), some
// (io.ErrUnexpectedEOF, ECONNRESET) or before we wrote (EPIPE).
func brokeOff(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE)
}

// writeFrame sends one frame, and with its first byte the descriptors of files.
func writeFrame(conn *net.UnixConn, v any, files ...*os.File) error {
	frame, err := encodeFrame(v)
	if err != nil {
		return err
	}
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		n, _, err := conn.WriteMsgUnix(frame, unix.UnixRights(fds...), nil)
		if err != nil {
			return fmt.Errorf("write frame: %w", err)
		}
		frame = frame[n:] // a stream socket may take less than all
	}
	if len(frame) == 0 {
		return nil // a write of nothing still fails if the other end has answered and closed
	}
	if _, err := conn.Write(frame); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	return nil
}

// rightsReader reads a stream and keeps the descriptors that come with it, at
// most maxFiles. The descriptors are close-on-exec (package net asks for
// MSG_CMSG_CLOEXEC) and are its owner's to close. With an error it gives no
// bytes: io.ReadFull forgets an error that comes with all it asked for.
type rightsReader struct {
	conn *net.UnixConn
	fds  []int
}

func (r *rightsReader) Read(p []byte) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oobn, flags, _, err := r.conn.ReadMsgUnix(p, oob)
	if oobn > 0 {
		messages, perr := unix.ParseSocketControlMessage(oob[:oobn])
		if perr != nil {
			return 0, fmt.Errorf("%w: control message: %w", errFrame, perr)
		}
		for i := range messages {
			fds, perr := unix.ParseUnixRights(&messages[i])
			if perr != nil {
				return 0, fmt.Errorf("%w: control message: %w", errFrame, perr)
			}
			r.fds = append(r.fds, fds...)
		}
	}
	if flags&unix.MSG_CTRUNC != 0 || len(r.fds) > maxFiles {
		return 0, fmt.Errorf("%w: more than %d file descriptors", errFrame, maxFiles)
	}
	return n, err
}

func (r *rightsReader) closeFiles() {
	for _, fd := range r.fds {
		unix.Close(fd)
	}
	r.fds = nil
}

// dirSocket names the socket dir/name by a path short enough for a socket
// address (108 bytes, unix(7)), however long dir is. The path holds until the
// returned file is closed.
func dirSocket(dir, name string) (string, *os.File, error) {
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), name), f, nil
}
