package kube

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"k8s.io/client-go/rest"
)

// What an API server refuses. The text has its words.
var (
	errForbidden = errors.New("no right")
	errNotFound  = errors.New("not found")
)

// caller asks one API server, one thing at a time.
type caller struct {
	http  *http.Client
	base  *url.URL
	agent string
}

func newCaller(cfg Config) (caller, error) {
	rc, err := restConfig(cfg)
	if err != nil {
		return caller{}, err
	}
	rc.UserAgent = cfg.UserAgent
	if cfg.Transport != nil {
		rc.Transport, rc.TLSClientConfig, rc.BearerTokenFile = cfg.Transport, rest.TLSClientConfig{}, ""
	}
	base, _, err := rest.DefaultServerUrlFor(rc)
	if err != nil {
		return caller{}, fmt.Errorf("address of the api server: %w", err)
	}
	client, err := rest.HTTPClientFor(rc)
	if err != nil {
		return caller{}, fmt.Errorf("make a client of the api server: %w", err)
	}
	return caller{client, base, rc.UserAgent}, nil
}

// request is one call; an empty method is GET.
type request struct {
	method, path string
	query        url.Values
	body         any // nil: none
}

// call decodes the answer into an object, or where into is a *[]byte, gives it as it is.
func (c caller) call(ctx context.Context, r request, into any) error {
	u := c.base.JoinPath(r.path)
	u.RawQuery = r.query.Encode()
	var body []byte
	if r.body != nil {
		var err error
		if body, err = json.Marshal(r.body); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, cmp.Or(r.method, http.MethodGet), u.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	raw, asIs := into.(*[]byte)
	req.Header.Set("Accept", "application/json")
	if asIs {
		req.Header.Set("Accept", "*/*")
	}
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.agent != "" {
		req.Header.Set("User-Agent", c.agent)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxPage+1))
	switch {
	case err != nil:
		return err
	case len(b) > maxPage:
		return fmt.Errorf("an answer of more than %d bytes", maxPage)
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return refusal(resp, b)
	case asIs:
		*raw = b
		return nil
	case into == nil:
		return nil
	}
	return json.Unmarshal(b, into)
}

func refusal(resp *http.Response, body []byte) error {
	var status struct {
		Message string `json:"message"`
	}
	_ = json.Unmarshal(body, &status) // a proxy's page is none
	said := cmp.Or(status.Message, resp.Status)
	switch resp.StatusCode {
	case http.StatusForbidden, http.StatusUnauthorized:
		return fmt.Errorf("%w: %s", errForbidden, said)
	case http.StatusNotFound:
		return fmt.Errorf("%w: %s", errNotFound, said)
	}
	return errors.New(said)
}
