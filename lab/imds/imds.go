// Package imds is the Instance Metadata Service, version 2, of one instance:
// an [http.Handler] that answers from a snapshot of what the instance is now.
//
//	PUT /latest/api/token --> token --+
//	                                  v
//	GET /latest/meta-data/...   [token good?] -> Metadata -> tree -> text
//
// Invariants. Every answer is made from one snapshot, so a listing and the
// values below it agree within one request, and nothing is remembered between
// requests. A token is its own record: its expiry, signed with a key that the
// handler made for itself. So tokens take no memory, however many are asked
// for; one of another instance is not valid here; and a restart of the lab
// invalidates them, which a client must survive anyway (401, then a new one).
// IMDSv1, a request without a token, is always refused.
//
// What is not here: user data, IPv6, public addresses, and the signatures of
// the identity document. Asked for, they are 404, as they are on an instance
// that has none.
//
// Concurrency: the handler holds no state that changes and is safe for
// concurrent use; its snapshot function must be, too.
//
// Source of paths, headers and status codes: "Use the Instance Metadata
// Service", "Retrieve instance metadata" and "Instance metadata categories",
// Amazon EC2 User Guide.
package imds

import (
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	tokenPath   = "/latest/api/token"
	tokenHeader = "X-Aws-Ec2-Metadata-Token"
	ttlHeader   = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"

	// A token lives one second to six hours ("Use the Instance Metadata
	// Service", Amazon EC2 User Guide).
	minTTL, maxTTL = 1, 21600
)

type handler struct {
	metadata func() (Metadata, bool)
	now      func() time.Time
	key      []byte // signs this instance's tokens
}

// New makes the service of one instance. metadata gives what the instance is at
// this moment; while it says false the service is absent: every request gets
// 503, which clients retry, unlike 404, which for many paths means that the
// instance has no such thing. now is the clock of token lifetimes.
func New(metadata func() (Metadata, bool), now func() time.Time) http.Handler {
	key := make([]byte, 32)
	rand.Read(key) // never fails: it ends the program rather
	return &handler{metadata: metadata, now: now, key: key}
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Server", "EC2ws")
	m, present := h.metadata()
	if !present {
		fail(w, http.StatusServiceUnavailable)
		return
	}
	switch r.Method {
	case http.MethodPut:
		h.putToken(w, r)
	case http.MethodGet, http.MethodHead:
		h.get(w, r, m)
	default:
		w.Header().Set("Allow", "GET, HEAD, PUT")
		fail(w, http.StatusMethodNotAllowed)
	}
}

// putToken begins a session. A request that came through a proxy is refused:
// an open proxy on the instance must not hand out its metadata.
func (h *handler) putToken(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != tokenPath || r.Header.Values("X-Forwarded-For") != nil {
		fail(w, http.StatusForbidden)
		return
	}
	ttl, err := strconv.Atoi(r.Header.Get(ttlHeader))
	if err != nil || ttl < minTTL || ttl > maxTTL {
		fail(w, http.StatusBadRequest)
		return
	}
	w.Header().Set(ttlHeader, strconv.Itoa(ttl))
	answer(w, makeToken(h.key, h.now().Add(time.Duration(ttl)*time.Second)))
}

func (h *handler) get(w http.ResponseWriter, r *http.Request, m Metadata) {
	if r.URL.Path == tokenPath {
		w.Header().Set("Allow", "PUT")
		fail(w, http.StatusMethodNotAllowed)
		return
	}
	left := tokenLife(h.key, r.Header.Get(tokenHeader), h.now())
	if left <= 0 {
		fail(w, http.StatusUnauthorized)
		return
	}
	text, found := resolve(tree(m), r.URL.Path)
	if !found {
		fail(w, http.StatusNotFound)
		return
	}
	w.Header().Set(ttlHeader, strconv.Itoa(int(left/time.Second)))
	answer(w, text)
}

func answer(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Accept-Ranges", "none")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	_, _ = io.WriteString(w, text) // a client that is gone needs no answer
}

// fail answers with a small page, as EC2 does.
func fail(w http.ResponseWriter, code int) {
	title := fmt.Sprintf("%d - %s", code, http.StatusText(code))
	var page strings.Builder
	fmt.Fprintf(&page, `<?xml version="1.0" encoding="iso-8859-1"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN"
	"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en">
 <head>
  <title>%[1]s</title>
 </head>
 <body>
  <h1>%[1]s</h1>
 </body>
</html>
`, title)
	w.Header().Set("Content-Type", "text/html")
	w.Header().Set("Content-Length", strconv.Itoa(page.Len()))
	w.WriteHeader(code)
	_, _ = io.WriteString(w, page.String())
}
