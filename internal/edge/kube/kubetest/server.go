package kubetest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Object is any object, as JSON has it.
type Object = map[string]any

// Server has objects.
type Server struct {
	mu      sync.Mutex
	version int
	uid     int
	forgot  int // versions up to this one are forgotten
	objects map[string]Object
	history []change
	news    chan struct{} // closed with each change, and when connections are cut
	cut     int           // how often they were
	away    bool
	refuse  map[string]int // verb and plural: the status that it gets
	calls   []Call
}

type change struct {
	version    int
	kind, path string
	object     Object
}

// Call is one request.
type Call struct {
	Verb string // list, watch, get, create, patch
	Path string
	Type string // content type of a patch
	Body Object // nil where it is none; of a JSON patch {"patch": [...]}
	At   time.Time
}

// New is a server without objects.
func New() *Server {
	return &Server{version: 10, objects: map[string]Object{}, news: make(chan struct{}), refuse: map[string]int{}}
}

// Put makes or replaces the object at a path such as /api/v1/nodes/node-a.
func (s *Server) Put(path string, o Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(path, clone(o))
}

func (s *Server) put(path string, o Object) {
	meta := part(o, "metadata")
	old, known := s.objects[path]
	kind := "ADDED"
	if known {
		kind = "MODIFIED"
		meta["uid"] = part(old, "metadata")["uid"]
	} else {
		s.uid++
		meta["uid"] = "00000000-0000-0000-0000-" + strconv.Itoa(100000000000+s.uid)
	}
	meta["name"] = path[strings.LastIndex(path, "/")+1:]
	if rest, ok := strings.CutPrefix(path, "/api/v1/namespaces/"); ok {
		meta["namespace"], _, _ = strings.Cut(rest, "/")
	}
	if spec, err := json.Marshal(o["spec"]); err == nil {
		generation, _ := part(old, "metadata")["generation"].(int)
		if was, _ := json.Marshal(old["spec"]); generation == 0 || string(was) != string(spec) {
			generation++
		}
		meta["generation"] = generation
	}
	s.record(kind, path, o)
	s.objects[path] = o
}

// record gives the change its version and tells the watches.
func (s *Server) record(kind, path string, o Object) {
	s.version++
	part(o, "metadata")["resourceVersion"] = strconv.Itoa(s.version)
	s.history = append(s.history, change{s.version, kind, path, clone(o)})
	s.wake()
}

func (s *Server) wake() {
	close(s.news)
	s.news = make(chan struct{})
}

// Delete removes an object.
func (s *Server) Delete(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, ok := s.objects[path]; ok {
		delete(s.objects, path)
		s.record("DELETED", path, o)
	}
}

// Get is the object at a path, or nil.
func (s *Server) Get(path string) Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	return clone(s.objects[path])
}

// Forget forgets the history: watches from before begin with 410 Gone.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgot, s.history = s.version, nil
}

// Cut ends all watches without a word.
func (s *Server) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut++
	s.wake()
}

// Away makes the server refuse connections, and cuts those there are, or ends that.
func (s *Server) Away(away bool) {
	s.mu.Lock()
	s.away = away
	s.mu.Unlock()
	s.Cut()
}

// Refuse answers requests of a verb for a plural with an HTTP status; 0 ends that.
func (s *Server) Refuse(verb, plural string, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse[verb+" "+plural] = status
}

// Calls is the requests of a verb, or of all where it is empty, since the start.
func (s *Server) Calls(verb string) []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Call
	for _, c := range s.calls {
		if verb == "" || c.Verb == verb {
			list = append(list, c)
		}
	}
	return list
}

// Under lists the objects whose path begins so, by path.
func (s *Server) Under(path string) []Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.under(path, "")
}

func (s *Server) under(path, field string) []Object {
	list := []Object{}
	for _, p := range slices.Sorted(maps.Keys(s.objects)) {
		if within(p, path) && selected(s.objects[p], field) {
			list = append(list, clone(s.objects[p]))
		}
	}
	return list
}

// within reports whether an object is of a collection, that of all namespaces too.
func within(object, collection string) bool {
	if strings.HasPrefix(object, collection+"/") {
		return true
	}
	plural := collection[strings.LastIndex(collection, "/")+1:]
	return strings.HasPrefix(object, collection[:len(collection)-len(plural)]+"namespaces/") && strings.Contains(object, "/"+plural+"/")
}

// selected knows the two field selectors that are asked for.
func selected(o Object, field string) bool {
	path, want, ok := strings.Cut(field, "=")
	if !ok {
		return true
	}
	at := any(o)
	for _, name := range strings.Split(path, ".") {
		m, _ := at.(Object)
		at = m[name]
	}
	return at == want
}

// ServeHTTP answers as the API does.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 4<<20))
	if err != nil {
		fail(w, http.StatusBadRequest, "BadRequest", err.Error())
		return
	}
	path, sub := strings.CutSuffix(r.URL.Path, "/status")
	plural := pluralOf(path, r.Method)
	verb := map[string]string{http.MethodGet: "list", http.MethodPatch: "patch", http.MethodPost: "create"}[r.Method]
	if r.URL.Query().Get("watch") != "" {
		verb = "watch"
	}
	c := Call{Verb: verb, Path: r.URL.Path, Type: r.Header.Get("Content-Type"), At: time.Now()}
	if json.Unmarshal(body, &c.Body) != nil && len(body) > 0 {
		var steps []any
		if json.Unmarshal(body, &steps) == nil {
			c.Body = Object{"patch": steps}
		}
	}
	s.mu.Lock()
	s.calls = append(s.calls, c)
	status := s.refuse[verb+" "+plural]
	s.mu.Unlock()
	switch {
	case status != 0:
		fail(w, status, map[int]string{403: "Forbidden", 404: "NotFound", 410: "Expired", 422: "Invalid", 409: "Conflict"}[status], "refused by the test")
	case verb == "watch":
		s.watch(w, r)
	case verb == "list":
		s.list(w, r)
	case verb == "create":
		s.create(w, r, c.Body)
	case verb == "patch":
		s.patch(w, path, sub, c)
	default:
		fail(w, http.StatusMethodNotAllowed, "MethodNotAllowed", r.Method)
	}
}

// pluralOf is the last part of a collection's path, or the last but one of an object's.
func pluralOf(path, method string) string {
	parts := strings.Split(path, "/")
	if method == http.MethodPatch {
		return parts[len(parts)-2]
	}
	return parts[len(parts)-1]
}

// kindOf is the kind of a collection, of which no object may be there.
var kindOf = map[string][2]string{
	"pods": {"v1", "Pod"}, "nodes": {"v1", "Node"}, "eniconfigs": {"crd.k8s.amazonaws.com/v1alpha1", "ENIConfig"},
	"nodeconfigs": {"fairway-cni.io/v1alpha1", "NodeConfig"}, "eninodes": {"fairway-cni.io/v1alpha1", "ENINode"}, "events": {"v1", "Event"},
}

func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	items, version := s.under(r.URL.Path, r.URL.Query().Get("fieldSelector")), s.version
	s.mu.Unlock()
	k := kindOf[pluralOf(r.URL.Path, r.Method)]
	answer(w, http.StatusOK, Object{"apiVersion": k[0], "kind": k[1] + "List",
		"metadata": Object{"resourceVersion": strconv.Itoa(version)}, "items": named(items, k)})
}

func named(items []Object, k [2]string) []Object {
	for _, o := range items {
		o["apiVersion"], o["kind"] = k[0], k[1]
	}
	return items
}

// watch streams what is newer than the version asked for, or begins with all there is.
func (s *Server) watch(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	k := kindOf[pluralOf(r.URL.Path, r.Method)]
	out := json.NewEncoder(w)
	send := func(kind string, o Object) { _ = out.Encode(Object{"type": kind, "object": o}) }
	s.mu.Lock()
	since, _ := strconv.Atoi(q.Get("resourceVersion"))
	initial := q.Get("sendInitialEvents") == "true"
	items, cut := s.under(r.URL.Path, q.Get("fieldSelector")), s.cut
	if initial {
		since = s.version
	} else if since < s.forgot {
		s.mu.Unlock()
		fail(w, http.StatusGone, "Expired", "too old resource version")
		return
	}
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if initial {
		for _, o := range named(items, k) {
			send("ADDED", o)
		}
		send("BOOKMARK", Object{"apiVersion": k[0], "kind": k[1], "metadata": Object{"resourceVersion": strconv.Itoa(since),
			"annotations": Object{"k8s.io/initial-events-end": "true"}}})
	}
	flush(w)
	for {
		s.mu.Lock()
		if s.cut != cut {
			s.mu.Unlock()
			return
		}
		var due []change
		for _, c := range s.history {
			if c.version > since && within(c.path, r.URL.Path) && selected(c.object, q.Get("fieldSelector")) {
				due = append(due, c)
			}
		}
		since, cut = s.version, s.cut
		news := s.news
		s.mu.Unlock()
		for _, c := range due {
			send(c.kind, named([]Object{clone(c.object)}, k)[0])
		}
		flush(w)
		select {
		case <-news:
		case <-r.Context().Done():
			return
		}
	}
}

func (s *Server) create(w http.ResponseWriter, r *http.Request, o Object) {
	name, _ := part(o, "metadata")["name"].(string)
	s.mu.Lock()
	defer s.mu.Unlock()
	path := r.URL.Path + "/" + name
	if _, known := s.objects[path]; known {
		fail(w, http.StatusConflict, "AlreadyExists", name)
		return
	}
	s.put(path, o)
	answer(w, http.StatusCreated, s.objects[path])
}

func flush(w http.ResponseWriter) {
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
}

func answer(w http.ResponseWriter, status int, o Object) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(o)
}

func fail(w http.ResponseWriter, status int, reason, message string) {
	answer(w, status, Object{"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": reason, "message": message, "code": status})
}

// clone goes by JSON, as the wire does.
func clone(o Object) Object {
	if o == nil {
		return nil
	}
	text, err := json.Marshal(o)
	if err != nil {
		panic(err) // a test's own object
	}
	var c Object
	_ = json.Unmarshal(text, &c)
	if meta, ok := c["metadata"].(Object); ok {
		if g, ok := meta["generation"].(float64); ok {
			meta["generation"] = int(g)
		}
	}
	return c
}

// part is an object within, made where it is not there.
func part(o Object, name string) Object {
	if o == nil {
		return Object{}
	}
	p, ok := o[name].(Object)
	if !ok {
		p = Object{}
		o[name] = p
	}
	return p
}

// errAway is what a connection to a server that is away ends with.
var errAway = errors.New("connection refused: the API server is away")

func (s *Server) isAway() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.away
}

// Transport reaches the server without a network. Its goroutines end with the
// requests' contexts.
func (s *Server) Transport() http.RoundTripper { return transport{s} }

type transport struct{ *Server }

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.isAway() {
		return nil, errAway
	}
	if r.Body == nil {
		r.Body = http.NoBody
	}
	ctx, cancel := context.WithCancel(r.Context())
	reader, writer := io.Pipe()
	w := &response{header: http.Header{}, ready: make(chan struct{}), body: writer}
	go func() {
		t.ServeHTTP(w, r.Clone(ctx))
		w.WriteHeader(http.StatusOK)
		writer.Close()
		cancel()
	}()
	select {
	case <-w.ready:
	case <-ctx.Done():
		reader.CloseWithError(ctx.Err())
		return nil, ctx.Err()
	}
	return &http.Response{StatusCode: w.status, Status: http.StatusText(w.status), Header: w.header, Request: r,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, ContentLength: -1, Body: &closer{reader, cancel}}, nil
}

// closer ends the handler when nobody reads any more.
type closer struct {
	*io.PipeReader
	cancel context.CancelFunc
}

func (c *closer) Close() error {
	c.cancel()
	return c.PipeReader.Close()
}

type response struct {
	header http.Header
	status int
	ready  chan struct{}
	body   *io.PipeWriter
}

func (w *response) Header() http.Header { return w.header }
func (w *response) Flush()              { w.WriteHeader(http.StatusOK) }

func (w *response) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
		close(w.ready)
	}
}

func (w *response) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(b)
}
