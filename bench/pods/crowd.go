package pods

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/fairway-cni/fairway/lab/kubernetes"
)

// creators is how many requests are on their way at a time: a crowd that a person
// makes comes from a controller, which is slower.
const creators = 16

// readyTime bounds the wait for all pods, on a machine that is very busy.
const readyTime = 10 * time.Minute

const podsPath = "/api/v1/namespaces/default/pods"

// Measure makes a cluster and the crowd in it, and says what became of the pods.
func Measure(ctx context.Context, env Env, n Network, round int) (_ Crowd, err error) {
	s, err := open(ctx, env, n, round)
	if err != nil {
		return Crowd{}, err
	}
	defer s.close(&err)
	a := &api{}
	a.client, a.server = s.cluster.HTTP()
	defer a.client.CloseIdleConnections()
	if err := a.settle(ctx); err != nil {
		return Crowd{}, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, readyTime, fmt.Errorf("not all pods were ready within %s", readyTime))
	defer cancel()
	before, err := busy()
	if err != nil {
		return Crowd{}, err
	}
	c, err := a.crowd(ctx)
	if err != nil {
		return Crowd{}, err
	}
	after, err := busy()
	if err != nil {
		return Crowd{}, err
	}
	c.Work = after - before
	asked, err := s.sandboxes()
	if err != nil {
		return Crowd{}, err
	}
	if len(asked) < Count {
		return Crowd{}, fmt.Errorf("the logs of containerd know the sandboxes of %d pods, want %d", len(asked), Count)
	}
	for _, times := range asked {
		if times > 1 {
			c.SecondSandboxes++
		}
	}
	c.Refused, err = a.refused(ctx)
	return c, err
}

// api is the API server, asked as the administrator.
type api struct {
	client *http.Client
	server string
}

// errStatus says that the API server answered with another status than 2xx.
var errStatus = errors.New("unexpected status")

// maxAnswer bounds an answer that is read as a whole, in bytes.
const maxAnswer = 32 << 20

func (a *api) do(ctx context.Context, method, path string, body []byte, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, a.server+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %w %s: %s", method, path, errStatus, resp.Status, text[:min(len(text), 300)])
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(text, into)
}

// conditions is what nodes and pods say of themselves.
type conditions struct {
	Status struct {
		Conditions []struct{ Type, Status string }
	}
}

func (c conditions) ready() bool {
	for _, is := range c.Status.Conditions {
		if is.Type == "Ready" {
			return is.Status == "True"
		}
	}
	return false
}

// settle waits until nothing happens in the cluster: the nodes are ready, and the
// DNS, which ptp's pods could not ask, is gone.
func (a *api) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	const dns = "/apis/apps/v1/namespaces/kube-system/deployments/coredns"
	return errors.Join(
		until(ctx, func() error { return a.do(ctx, http.MethodDelete, dns+"?propagationPolicy=Background", nil, nil) }),
		until(ctx, func() error {
			var list struct{ Items []conditions }
			if err := a.do(ctx, http.MethodGet, "/api/v1/namespaces/kube-system/pods", nil, &list); err != nil || len(list.Items) > 0 {
				return errors.Join(err, errors.New("pods of the DNS are there"))
			}
			return nil
		}),
		until(ctx, func() error {
			var list struct{ Items []conditions }
			if err := a.do(ctx, http.MethodGet, "/api/v1/nodes", nil, &list); err != nil {
				return err
			}
			for _, n := range list.Items {
				if !n.ready() {
					return errors.New("a node is not ready")
				}
			}
			return nil
		}))
}

// until polls; when ctx ends, what was last said is the error.
func until(ctx context.Context, ok func() error) error {
	for {
		err := ok()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// crowd makes the pods and waits until all are ready.
func (a *api) crowd(ctx context.Context) (Crowd, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	made := make([]time.Time, Count)
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.create(ctx, made, cancel)
	}()
	ready := map[string]time.Time{}
	for len(ready) < Count && ctx.Err() == nil {
		// The API server ends a watch whose reader it finds too slow.
		if err := a.watch(ctx, ready); err != nil {
			cancel(fmt.Errorf("%d of %d pods were ready: %w", len(ready), Count, err))
		}
	}
	<-done
	if len(ready) < Count {
		return Crowd{}, context.Cause(ctx)
	}
	return measure(made, ready)
}

// podState is what is read of a pod.
type podState struct {
	conditions
	Metadata struct{ Name, ResourceVersion string }
}

func (p podState) note(ready map[string]time.Time) {
	if _, known := ready[p.Metadata.Name]; !known && p.ready() {
		ready[p.Metadata.Name] = time.Now()
	}
}

// watch notes which pods are ready, until all are or the watch ends.
func (a *api) watch(ctx context.Context, ready map[string]time.Time) error {
	var list struct {
		Items    []podState
		Metadata struct{ ResourceVersion string }
	}
	if err := a.do(ctx, http.MethodGet, podsPath, nil, &list); err != nil {
		return err
	}
	for _, p := range list.Items {
		p.note(ready)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.server+podsPath+"?watch=true&resourceVersion="+list.Metadata.ResourceVersion, nil)
	if err != nil {
		return err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("watch pods: %w %s", errStatus, resp.Status)
	}
	for d := json.NewDecoder(resp.Body); len(ready) < Count; {
		var e struct {
			Type   string
			Object podState
		}
		if err := d.Decode(&e); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("watch pods: %w", err)
		}
		if e.Type == "ERROR" { // what it began from is too old by now
			return nil
		}
		e.Object.note(ready)
	}
	return nil
}

// measure gives each pod's start, the shortest first.
func measure(made []time.Time, ready map[string]time.Time) (c Crowd, err error) {
	for i, at := range made {
		is, ok := ready[podName(i)]
		if !ok {
			return Crowd{}, fmt.Errorf("pod %s was never ready", podName(i))
		}
		c.Starts = append(c.Starts, is.Sub(at))
	}
	slices.Sort(c.Starts)
	return c, nil
}

// create makes the pods, and notes when it asked for each. Where one cannot be made
// it gives up, and so must who waits for them.
func (a *api) create(ctx context.Context, made []time.Time, giveUp context.CancelCauseFunc) {
	next := make(chan int, Count)
	for i := range Count {
		next <- i
	}
	close(next)
	var wg sync.WaitGroup
	for range creators {
		wg.Go(func() {
			for i := range next {
				made[i] = time.Now()
				if err := a.do(ctx, http.MethodPost, podsPath, pod(i), nil); err != nil {
					giveUp(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func podName(i int) string { return fmt.Sprintf("pod-%03d", i) }

// pod is one that does nothing, in the words of Kubernetes.
func pod(i int) []byte {
	const app = "crowd"
	text, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": podName(i), "labels": map[string]string{"app": app}},
		"spec": map[string]any{
			"containers":                   []any{map[string]any{"name": "pause", "image": kubernetes.PauseImage}},
			"automountServiceAccountToken": false, "enableServiceLinks": false,
			"topologySpreadConstraints": []any{map[string]any{
				"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
				"labelSelector": map[string]any{"matchLabels": map[string]string{"app": app}},
			}},
		},
	})
	if err != nil {
		panic(err) // it is made of text and numbers
	}
	return text
}

// refused is how often kubelets said that a sandbox could not be made.
func (a *api) refused(ctx context.Context) (int, error) {
	var list struct {
		Items []struct {
			Count  int
			Series *struct{ Count int }
		}
	}
	err := a.do(ctx, http.MethodGet, "/api/v1/events?fieldSelector=reason%3DFailedCreatePodSandBox", nil, &list)
	n := 0
	for _, e := range list.Items {
		times := max(e.Count, 1)
		if e.Series != nil {
			times = max(times, e.Series.Count)
		}
		n += times
	}
	return n, err
}
