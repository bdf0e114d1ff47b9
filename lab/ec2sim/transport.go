package ec2sim

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
)

// Transport reaches the cloud without a socket: it calls the handler in the
// goroutine of the caller. So a client that is given it, such as the AWS SDK's,
// can run under testing/synctest, whose clock then is the cloud's, too:
//
//	ec2.New(ec2.Options{HTTPClient: &http.Client{Transport: cloud.Transport()}, ...})
//
// Scheme and host of a request do not count. A request whose context ends gets
// the context's error; a connection that the cloud breaks off is
// [syscall.ECONNRESET].
func (c *Cloud) Transport() http.RoundTripper { return transport{c} }

type transport struct{ cloud *Cloud }

// RoundTrip does one request.
func (t transport) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	in := r.Clone(r.Context())
	if in.Body == nil {
		in.Body = http.NoBody
	}
	defer in.Body.Close()
	if in.Host == "" {
		in.Host = in.URL.Host
	}
	in.RequestURI, in.RemoteAddr = in.URL.RequestURI(), "in-memory"
	w := &memory{header: http.Header{}}
	defer func() {
		if p := recover(); p == http.ErrAbortHandler {
			resp, err = nil, fmt.Errorf("in-memory EC2: %w", syscall.ECONNRESET)
		} else if p != nil {
			panic(p)
		}
	}()
	t.cloud.ServeHTTP(w, in)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	w.WriteHeader(http.StatusOK)
	text := w.body.Bytes()
	return &http.Response{
		Status:     strings.TrimSpace(fmt.Sprintf("%d %s", w.status, http.StatusText(w.status))),
		StatusCode: w.status,
		Proto:      "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.header, Body: io.NopCloser(bytes.NewReader(text)), ContentLength: int64(len(text)),
		Request: r,
	}, nil
}

// memory is a reply that no connection carries.
type memory struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (m *memory) Header() http.Header { return m.header }

func (m *memory) WriteHeader(status int) {
	if m.status == 0 {
		m.status = status
	}
}

func (m *memory) Write(b []byte) (int, error) {
	m.WriteHeader(http.StatusOK)
	return m.body.Write(b)
}
