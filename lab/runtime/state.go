package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func (r *Runtime) podsDir() string { return filepath.Join(r.config.StateDir, "pods") }

func (r *Runtime) record(name string) string { return filepath.Join(r.podsDir(), name+".json") }

// create writes the record of a new pod, or returns ErrExists. A reader sees
// all of it or none.
func (r *Runtime) create(pod Pod) error {
	temp, err := r.temp(pod)
	if err != nil {
		return err
	}
	defer os.Remove(temp)
	err = os.Link(temp, r.record(pod.Name)) // unlike a rename it never replaces
	if errors.Is(err, os.ErrExist) {
		return ErrExists
	}
	return err
}

// replace writes the record of a pod that has one.
func (r *Runtime) replace(pod Pod) error {
	temp, err := r.temp(pod)
	if err != nil {
		return err
	}
	defer os.Remove(temp) // fails after the rename, as it should
	return os.Rename(temp, r.record(pod.Name))
}

func (r *Runtime) temp(pod Pod) (string, error) {
	data, err := json.MarshalIndent(pod, "", "  ")
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(r.podsDir(), 0o700); err != nil {
		return "", fmt.Errorf("write record of pod %s: %w", pod.Name, err)
	}
	path := filepath.Join(r.podsDir(), "."+pod.ID)
	if err := os.WriteFile(path, append(data, '\n'), 0o600); err != nil {
		return "", fmt.Errorf("write record of pod %s: %w", pod.Name, err)
	}
	return path, nil
}

func (r *Runtime) remove(name string) error {
	if err := os.Remove(r.record(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (r *Runtime) load(name string) (Pod, error) {
	data, err := os.ReadFile(r.record(name))
	if errors.Is(err, os.ErrNotExist) {
		return Pod{}, ErrNotFound
	}
	if err != nil {
		return Pod{}, err
	}
	var pod Pod
	if err := json.Unmarshal(data, &pod); err != nil {
		return Pod{}, fmt.Errorf("read %s: %w: remove the file to forget the pod", r.record(name), err)
	}
	return pod, nil
}

// List gives all pods by name, those among them that are not ready too.
func (r *Runtime) List() ([]Pod, error) {
	files, err := os.ReadDir(r.podsDir()) // sorted by name
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	var pods []Pod
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), ".json")
		if !ok || checkName(name) != nil {
			continue
		}
		pod, err := r.load(name)
		if errors.Is(err, ErrNotFound) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("list pods: %w", err)
		}
		pods = append(pods, pod)
	}
	return pods, nil
}

// The lock is one file whose bytes stand for what can be locked: byte 0 for
// adding and deleting at all, and further on one for each name. Two names with
// the same byte wait for each other, which does no harm. The kernel drops the
// locks of a process that dies.
const (
	lockEvery = 10 * time.Millisecond
	lockSpace = 1 << 40
)

// lock waits until the caller may change the pod.
func (r *Runtime) lock(ctx context.Context, name string) (unlock func(), err error) {
	h := fnv.New64a()
	h.Write([]byte(name))
	return r.lockBytes(ctx, name,
		unix.Flock_t{Type: unix.F_RDLCK, Start: 0, Len: 1},
		unix.Flock_t{Type: unix.F_WRLCK, Start: 1 + int64(h.Sum64()%lockSpace), Len: 1})
}

// lockAll waits until nobody else changes any pod.
func (r *Runtime) lockAll(ctx context.Context) (unlock func(), err error) {
	return r.lockBytes(ctx, "all pods", unix.Flock_t{Type: unix.F_WRLCK, Start: 0, Len: 1})
}

func (r *Runtime) lockBytes(ctx context.Context, what string, locks ...unix.Flock_t) (func(), error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("lock %s: %w", what, err)
	}
	if err := os.MkdirAll(r.config.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("lock %s: %w", what, err)
	}
	f, err := os.OpenFile(filepath.Join(r.config.StateDir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", what, err)
	}
	tick := time.NewTicker(lockEvery)
	defer tick.Stop()
	for _, l := range locks {
		for {
			// Of the open file and not of the process, so that goroutines exclude
			// each other as well; closing the file unlocks (fcntl(2), Linux 3.15).
			err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l)
			if err == nil {
				break
			}
			if err != unix.EAGAIN && err != unix.EACCES && err != unix.EINTR {
				f.Close()
				return nil, fmt.Errorf("lock %s: %w", what, err)
			}
			select {
			case <-ctx.Done():
				f.Close()
				return nil, fmt.Errorf("wait for another operation on %s to end: %w", what, ctx.Err())
			case <-tick.C:
			}
		}
	}
	return func() { f.Close() }, nil
}
