package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// podServer has one pod at a time, whose status is said look by look.
type podServer struct {
	statuses []string // JSON of each look; the last one stays
	log      string
	refuse   string // METHOD PATH that nobody may
	made     object
	calls    []string
	onLook   func()
}

func (s *podServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	call := r.Method + " " + r.URL.Path
	if s.calls = append(s.calls, call); call == s.refuse {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, `{"kind":"Status","message":"pods is forbidden: User \"eve\" cannot do that"}`)
		return
	}
	const pod = "/api/v1/namespaces/tools/pods/fairway-bundle-x7"
	switch call {
	case "POST /api/v1/namespaces/tools/pods":
		if err := json.NewDecoder(r.Body).Decode(&s.made); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"metadata":{"name":"fairway-bundle-x7","uid":"u1"}}`)
	case "GET " + pod:
		if s.onLook != nil {
			s.onLook()
		}
		fmt.Fprintf(w, `{"metadata":{"name":"fairway-bundle-x7"},"status":%s}`, s.statuses[0])
		s.statuses = s.statuses[min(1, len(s.statuses)-1):]
	case "GET " + pod + "/log":
		fmt.Fprint(w, s.log)
	case "DELETE " + pod:
		fmt.Fprint(w, `{}`)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (s *podServer) do(t *testing.T, ctx context.Context) (string, error) {
	t.Helper()
	server := httptest.NewServer(s)
	defer server.Close()
	e := Errand{Node: "node-a", Namespace: "tools", Image: Image{"i:1", []string{"s1"}}, Command: []string{"/fairway", "bundle"}}
	out, err := e.Do(ctx, Config{Kubeconfig: kubeconfig(t, "c", server.URL)})
	return string(out), err
}

const (
	pending = `{"phase":"Pending","containerStatuses":[{"state":{"waiting":{"reason":"ContainerCreating"}}}]}`
	over    = `{"phase":"Succeeded","containerStatuses":[{"state":{"terminated":{"reason":"Completed"}}}]}`
	failed  = `{"phase":"Failed","containerStatuses":[{"state":{"terminated":{"reason":"Error","exitCode":1}}}]}`
	noImage = `{"phase":"Pending","containerStatuses":[{"state":{"waiting":{"reason":"ErrImagePull","message":"not there"}}}]}`
	late    = `{"phase":"Failed","reason":"DeadlineExceeded","message":"Pod was active on the node longer than the specified deadline"}`
)

const gonePod = "DELETE /api/v1/namespaces/tools/pods/fairway-bundle-x7"

func TestErrand(t *testing.T) {
	for _, tt := range []struct {
		name   string
		server podServer
		says   string // of the error; empty: none
		gone   bool   // the pod has been deleted
	}{
		{"in order", podServer{statuses: []string{pending, over}, log: "all of it"}, "", true},
		{"it fails", podServer{statuses: []string{failed}, log: "reading\nfairway: no right\n"}, "exit status 1: fairway: no right", true},
		{"too late", podServer{statuses: []string{late}}, "DeadlineExceeded", true},
		{"no image", podServer{statuses: []string{noImage}}, "ErrImagePull: not there", true},
		{"no right to make it", podServer{refuse: "POST /api/v1/namespaces/tools/pods"}, "create a pod on node node-a: no right: pods is forbidden", false},
		{"no right to the log", podServer{statuses: []string{over}, refuse: "GET /api/v1/namespaces/tools/pods/fairway-bundle-x7/log"}, "log of pod tools/fairway-bundle-x7", true},
		{"no right to delete it", podServer{statuses: []string{over}, log: "all of it", refuse: gonePod}, "delete pod tools/fairway-bundle-x7, which ends by itself", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := tt.server.do(t, t.Context())
			switch {
			case tt.says == "" && (err != nil || out != "all of it"):
				t.Errorf("%q, %v", out, err)
			case tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)):
				t.Errorf("%v, want %q", err, tt.says)
			}
			if slices.Contains(tt.server.calls, gonePod) != tt.gone {
				t.Errorf("calls %q", tt.server.calls)
			}
		})
	}
}

// TestErrandInterrupted: the pod goes too where nobody waits for it any more.
func TestErrandInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := podServer{statuses: []string{pending}, onLook: cancel}
	if _, err := s.do(t, ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
	if !slices.Contains(s.calls, gonePod) {
		t.Errorf("calls %q", s.calls)
	}
}

// TestErrandsPod: it is where it should be, may do what it must, and no more.
func TestErrandsPod(t *testing.T) {
	s := podServer{statuses: []string{over}, log: "all of it"}
	if _, err := s.do(t, t.Context()); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(s.made)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"nodeName":"node-a"`, `"image":"i:1"`, `"command":["/fairway","bundle"]`, `"drop":["ALL"]`, `"imagePullSecrets":[{"name":"s1"}]`, `"readOnly":true`,
		`"readOnlyRootFilesystem":true`, `"automountServiceAccountToken":false`, `"activeDeadlineSeconds":120`, `"restartPolicy":"Never"`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %s in %s", want, b)
		}
	}
	if strings.Contains(string(b), "privileged") {
		t.Errorf("%s", b)
	}
}

func TestAgentImage(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/apis/apps/v1/namespaces/net/daemonsets/fairway-agent" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		fmt.Fprint(w, `{"spec":{"template":{"spec":{"imagePullSecrets":[{"name":"s2"}],"containers":[{"name":"side","image":"s:1"},{"name":"agent","image":"f:2"}]}}}}`)
	}))
	defer server.Close()
	cfg := Config{Kubeconfig: kubeconfig(t, "c", server.URL)}
	if got := AgentImage(t.Context(), cfg, "net"); got.Name != "f:2" || !slices.Equal(got.PullSecrets, []string{"s2"}) {
		t.Errorf("%+v", got)
	}
	if got := AgentImage(t.Context(), cfg, "elsewhere"); got.Name != "" {
		t.Errorf("%+v where there is none", got)
	}
}
