package add

import (
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

// program is one start of a program, ready but for the start itself.
type program struct {
	argv  []string
	env   []string
	stdin []byte // less than a pipe holds: 64 KiB
}

// outcome is how a program went: the time from just before it was forked until
// it was waited for, and what it printed.
type outcome struct {
	took   time.Duration
	stdout []byte
	err    error
}

// started is a program with its pipes.
type started struct {
	program
	in, out, outEnd *os.File
	attr            *syscall.ProcAttr
}

func (p program) prepare() (*started, error) {
	in, inEnd, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	_, err = inEnd.Write(p.stdin)
	if err2 := inEnd.Close(); err == nil {
		err = err2
	}
	if err != nil {
		in.Close()
		return nil, err
	}
	out, outEnd, err := os.Pipe()
	if err != nil {
		in.Close()
		return nil, err
	}
	return &started{program: p, in: in, out: out, outEnd: outEnd, attr: &syscall.ProcAttr{
		Env: p.env, Files: []uintptr{in.Fd(), outEnd.Fd(), os.Stderr.Fd()},
	}}, nil
}

// fork lets one goroutine at a time fork, as package syscall does anyway: here,
// so that the wait for one's turn is not measured.
var fork sync.Mutex

// run is what is measured. It uses fork and wait themselves, not package
// os/exec, whose goroutines for the pipes would be measured too.
func (s *started) run() (time.Duration, error) {
	fork.Lock()
	start := time.Now()
	pid, err := syscall.ForkExec(s.argv[0], s.argv, s.attr)
	fork.Unlock()
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", s.argv[0], err)
	}
	var status syscall.WaitStatus
	for {
		_, err = syscall.Wait4(pid, &status, 0, nil)
		if err != syscall.EINTR {
			break
		}
	}
	took := time.Since(start)
	if err != nil {
		return 0, fmt.Errorf("wait for %s: %w", s.argv[0], err)
	}
	switch {
	case status.Signaled():
		return 0, fmt.Errorf("%s: signal %s", s.argv[0], status.Signal())
	case status.ExitStatus() != 0:
		return 0, fmt.Errorf("%s: exit status %d", s.argv[0], status.ExitStatus())
	}
	return took, nil
}

// finish reads what was printed and closes the pipes.
func (s *started) finish(took time.Duration, err error) outcome {
	s.in.Close()
	s.outEnd.Close()
	text, readErr := io.ReadAll(s.out)
	s.out.Close()
	if err != nil && len(text) > 0 {
		err = fmt.Errorf("%w: %s", err, text)
	}
	if err == nil {
		err = readErr
	}
	return outcome{took, text, err}
}

// one runs a program alone.
func one(p program) outcome {
	s, err := p.prepare()
	if err != nil {
		return outcome{err: err}
	}
	return s.finish(s.run())
}

// all runs programs at the same time, and gives their outcomes in order.
func all(programs []program) []outcome {
	outcomes := make([]outcome, len(programs))
	ready := make([]*started, len(programs))
	for i, p := range programs {
		ready[i], outcomes[i].err = p.prepare()
	}
	gate := make(chan struct{})
	var wg sync.WaitGroup
	for i, s := range ready {
		if s == nil {
			continue
		}
		wg.Go(func() {
			<-gate
			took, err := s.run()
			outcomes[i] = s.finish(took, err)
		})
	}
	close(gate)
	wg.Wait()
	return outcomes
}

// times collects what was measured; any failure fails the bench.
func times(outcomes []outcome) ([]time.Duration, error) {
	var d []time.Duration
	for _, o := range outcomes {
		if o.err != nil {
			return nil, o.err
		}
		d = append(d, o.took)
	}
	return d, nil
}
