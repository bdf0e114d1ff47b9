package cniapi

import (
	"errors"
	"strconv"
	"syscall"
	"time"
)

// Client says where the agent is and how long to wait for it.
type Client struct {
	Socket  string        // path
	Connect time.Duration // how long to try to reach the agent; 0: once
	Answer  time.Duration // from then on, until the answer is complete
}

// Do sends one request with its file descriptors, which stay the caller's, and
// gives the answer. Without an answer the error wraps [ErrAway], [ErrNoAnswer],
// [ErrGarbage] or [ErrTooLarge].
//
// It blocks its thread, on purpose: a program that does this one thing is
// through before the runtime's poller would have started.
func (c Client) Do(req Request, fds ...int) (Reply, error) {
	frame, err := req.Frame()
	if err != nil {
		return Reply{}, err
	}
	conn, err := c.connect()
	if err != nil {
		return Reply{}, err
	}
	defer syscall.Close(conn)
	deadline := time.Now().Add(c.Answer)

	// An agent that refuses its caller answers and closes before it has read,
	// which the send sees as EPIPE; what it said is there to be read all the same.
	sendErr := send(conn, frame, fds, deadline)
	if sendErr != nil && !errors.Is(sendErr, syscall.EPIPE) {
		return Reply{}, noAnswer("send request", sendErr)
	}
	text, err := receive(conn, deadline)
	if err != nil {
		return Reply{}, err
	}
	return parseReply(text)
}

// retryEvery is short against the time an agent needs to start, and long
// against a connect, which takes microseconds.
const retryEvery = 20 * time.Millisecond

func (c Client) connect() (int, error) {
	deadline := time.Now().Add(c.Connect)
	for {
		fd, err := c.try(deadline)
		if err == nil {
			return fd, nil
		}
		left := time.Until(deadline)
		// No such file, or nobody listens: it may be about to start. All else
		// (permission, a path that cannot be) will not change by waiting.
		if left <= 0 || err != syscall.ENOENT && err != syscall.ECONNREFUSED {
			return -1, wrap("connect to "+c.Socket+": "+err.Error(), ErrAway)
		}
		time.Sleep(min(retryEvery, left))
	}
}

func (c Client) try(deadline time.Time) (int, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	// With a full backlog connect blocks for the send timeout: unix(7) and
	// socket(7), SO_SNDTIMEO.
	err = setTimeout(fd, syscall.SO_SNDTIMEO, max(time.Until(deadline), 100*time.Millisecond))
	if err == nil {
		err = again(func() error { return syscall.Connect(fd, &syscall.SockaddrUnix{Name: c.Socket}) })
	}
	if err != nil {
		syscall.Close(fd)
		return -1, err
	}
	return fd, nil
}

func send(conn int, frame []byte, fds []int, deadline time.Time) error {
	var rights []byte
	if len(fds) > 0 {
		rights = syscall.UnixRights(fds...)
	}
	for len(frame) > 0 {
		if err := leave(conn, syscall.SO_SNDTIMEO, deadline); err != nil {
			return err
		}
		n := 0
		err := again(func() (err error) {
			n, err = syscall.SendmsgN(conn, frame, rights, nil, syscall.MSG_NOSIGNAL)
			return err
		})
		if err != nil {
			return err
		}
		frame, rights = frame[n:], nil
	}
	return nil
}

// receive reads one frame and gives its JSON.
func receive(conn int, deadline time.Time) ([]byte, error) {
	header := make([]byte, HeaderLen)
	if err := readFull(conn, header, deadline); err != nil {
		return nil, noAnswer("read answer", err)
	}
	n, err := Length(header)
	if err != nil {
		return nil, err
	}
	text := make([]byte, n)
	if err := readFull(conn, text, deadline); err != nil {
		return nil, noAnswer("read answer of "+strconv.Itoa(n)+" bytes", err)
	}
	return text, nil
}

var errClosed = errors.New("connection closed")

func readFull(conn int, b []byte, deadline time.Time) error {
	for len(b) > 0 {
		if err := leave(conn, syscall.SO_RCVTIMEO, deadline); err != nil {
			return err
		}
		n := 0
		err := again(func() (err error) {
			n, err = syscall.Read(conn, b)
			return err
		})
		if err != nil {
			return err
		}
		if n == 0 {
			return errClosed
		}
		b = b[n:]
	}
	return nil
}

// leave sets the timeout of the next call to what is left until the deadline.
func leave(conn, option int, deadline time.Time) error {
	left := time.Until(deadline)
	if left <= 0 {
		return syscall.EAGAIN
	}
	return setTimeout(conn, option, left)
}

// setTimeout rounds up to a microsecond: zero would mean to wait forever.
func setTimeout(fd, option int, d time.Duration) error {
	tv := syscall.NsecToTimeval(int64(max(d, time.Microsecond)))
	return syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, option, &tv)
}

func noAnswer(doing string, err error) error {
	why := err.Error()
	if errors.Is(err, syscall.EAGAIN) { // what a socket timeout gives
		why = "time is up"
	}
	return wrap(doing+": "+why, ErrNoAnswer)
}

// again repeats a call that a signal cut short. The Go runtime sends itself
// signals, and a call with a socket timeout is not restarted: signal(7).
func again(call func() error) error {
	for {
		if err := call(); err != syscall.EINTR {
			return err
		}
	}
}
