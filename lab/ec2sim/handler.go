package ec2sim

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// apiVersion is the only version of the EC2 Query API served.
const apiVersion = "2016-11-15"

// ServeHTTP answers one request of the EC2 Query API: a form by POST, or the
// same as a query string by GET. Of a signature only the region is looked at,
// unless [Config].IAM is on: see caller.go.
func (c *Cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	req := c.begin(r)
	id := req.ID
	finished := false
	defer func() { // also where an outage panics
		if !finished {
			c.finish(req, http.ErrAbortHandler)
		}
	}()
	name, body, err := c.In(req.Region).serve(w, r, req)
	finished = true
	c.finish(req, err)
	if err != nil {
		refused := &Error{Code: "InternalError", Message: "An internal error has occurred: " + err.Error()}
		errors.As(err, &refused)
		writeXML(w, id, refused.HTTPStatus(), xml.StartElement{Name: xml.Name{Local: "Response"}}, xmlError{refused.Code, refused.Message, id})
		return
	}
	body.head().RequestID = id
	writeXML(w, id, http.StatusOK, xml.StartElement{
		Name: xml.Name{Local: name + "Response"},
		Attr: []xml.Attr{{Name: xml.Name{Local: "xmlns"}, Value: "http://ec2.amazonaws.com/doc/" + apiVersion + "/"}},
	}, body)
}

// scope is the region that a request is signed for: the third part of the
// credential, in the header or in the query string of a presigned request.
//
//	Authorization: AWS4-HMAC-SHA256 Credential=AKID/20260102/eu-west-1/ec2/aws4_request, ...
//
// Source: "Elements of an AWS API request signature", IAM User Guide. Without
// one it is the default.
func scope(r *http.Request, def string) string {
	credential := r.URL.Query().Get("X-Amz-Credential")
	if _, rest, ok := strings.Cut(r.Header.Get("Authorization"), "Credential="); ok {
		credential, _, _ = strings.Cut(rest, ",")
	}
	if parts := strings.Split(strings.TrimSpace(credential), "/"); len(parts) == 5 && parts[2] != "" {
		return parts[2]
	}
	return def
}

// serve gives the action's name and its reply.
func (c *Cloud) serve(w http.ResponseWriter, r *http.Request, req *request) (string, replier, error) {
	if err := c.blackOut(r); err != nil {
		return "", nil, err
	}
	kept := keepBody(r)
	values, err := readForm(w, r)
	if err != nil {
		return "", nil, err
	}
	root, err := parseForm(values)
	if err != nil {
		return "", nil, err
	}
	f := newForm(root)
	name, version := f.in("Action").text(), f.in("Version").text()
	if name == "" {
		return "", nil, fail("MissingAction", "The request must contain the parameter Action")
	}
	if version == "" {
		return "", nil, missing("Version")
	}
	req.Action = name[:min(len(name), maxActionName)]
	if version != apiVersion {
		return "", nil, fail("NoSuchVersion", "The requested version (%s) of service ec2 does not exist", version)
	}
	act, ok := actions[name]
	if !ok {
		return "", nil, fail("InvalidAction", "The action %s is not valid for this web service.", name)
	}
	who, err := c.identify(r, kept.Bytes())
	if err != nil {
		return "", nil, err
	}
	req.Caller = c.logName(who)
	late, refused := c.refuse(name)
	if !c.wait(r, late) {
		return "", nil, r.Context().Err() // nobody is there to read it
	}
	if refused != nil {
		return "", nil, refused
	}
	if err := c.throttle(name, root); err != nil {
		return "", nil, err
	}
	if err := c.authorize(who, name, root); err != nil {
		return "", nil, err
	}
	if c, err = c.later(r, req, root); err != nil {
		return "", nil, err
	}
	dry := act.dryRun && f.in("DryRun").flag().Value
	body, err := act.serve(c, f, dry)
	return name, body, err
}

// readForm takes the parameters from the query string and the body. Those of a
// presigned request are no parameters of the action.
func readForm(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	if r.URL.Path != "/" && r.URL.Path != "" {
		return nil, &Error{Code: "InvalidRequest", Message: "The path must be /.", Status: http.StatusNotFound}
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fail("MalformedQueryString", "The query string contains a syntax error: %s", err)
	}
	maps.DeleteFunc(values, func(name string, _ []string) bool { return strings.HasPrefix(name, "X-Amz-") })
	switch r.Method {
	case http.MethodGet:
		return values, nil
	case http.MethodPost:
	default:
		return nil, fail("MethodNotAllowed", "The method %s is not allowed. Use GET or POST.", r.Method)
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return nil, fail("RequestEntityTooLarge", "The request is larger than %d bytes.", maxBody)
	}
	if err != nil {
		return nil, fail("MalformedQueryString", "The body cannot be read: %s", err)
	}
	posted, err := url.ParseQuery(string(text))
	if err != nil {
		return nil, fail("MalformedQueryString", "The body contains a syntax error: %s", err)
	}
	for name, list := range posted {
		values[name] = append(values[name], list...)
	}
	return values, nil
}

// requestID gives an identifier in the form of a UUID.
func requestID(seed, n uint64) string {
	a, b := mix(n+seed*seedStep), mix(^n+seed*seedStep)
	return fmt.Sprintf("%08x-%04x-4%03x-a%03x-%012x", a>>32, a>>16&0xffff, a&0xfff, b>>48&0xfff, b&0xffffffffffff)
}

func writeXML(w http.ResponseWriter, id string, status int, root xml.StartElement, body any) {
	var text bytes.Buffer
	text.WriteString(xml.Header)
	if err := xml.NewEncoder(&text).EncodeElement(body, root); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError) // a type of ours that is no XML: every test of its action shows it
		return
	}
	w.Header().Set("Content-Type", "text/xml;charset=UTF-8")
	w.Header().Set("X-Amzn-Requestid", id)
	w.WriteHeader(status)
	if _, inMemory := w.(*memory); !inMemory && text.Len() > largeReply {
		time.Sleep(settle)
	}
	w.Write(text.Bytes())
}

// The AWS SDK for Go closes its request's body as soon as it has the reply's
// head. If the connection's write loop looks for the end of that body only
// then, it is told of an error and closes the connection, under whoever reads
// the rest of the reply: "use of closed network connection"
// (aws/aws-sdk-go-v2, issue 2737). No real service answers within the
// microseconds that this takes, so neither do we: a reply that does not fit
// the client's read buffer of 4 KiB waits a moment. It is no state, hence the
// real clock.
const (
	largeReply = 3 << 10 // bytes, which leaves room for the head
	settle     = time.Millisecond
)

// reply is the beginning of every successful answer.
type reply struct {
	RequestID string `xml:"requestId"`
}

func (r *reply) head() *reply { return r }

// replier is an answer: a pointer to a struct that begins with a reply.
type replier interface{ head() *reply }

type xmlError struct {
	Code      string `xml:"Errors>Error>Code"`
	Message   string `xml:"Errors>Error>Message"`
	RequestID string `xml:"RequestID"`
}

// action is one entry of the API.
type action struct {
	dryRun bool // whether it has the parameter DryRun
	serve  func(c *Cloud, f form, dry bool) (replier, error)
}

// act makes an action of how to read its parameters, what to do, and how to
// show the outcome. A dry run does everything and is then undone, so what it
// says about success is true.
func act[In, Out any](parse func(form) In, do func(*state, In) (Out, error), render func(*state, Out) replier) action {
	return action{dryRun: true, serve: func(c *Cloud, f form, dry bool) (replier, error) {
		in := parse(f)
		if name, ok := f.node.unknown(); ok {
			return nil, fail("UnknownParameter", "The parameter %s is not recognized", name)
		}
		if *f.err != nil {
			return nil, *f.err
		}
		return call(c, in, func(s *state, in In) (replier, error) {
			out, err := do(s, in)
			if err == nil && dry {
				err = fail("DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
			}
			if err != nil {
				return nil, err
			}
			return render(s, out), nil
		})
	}}
}

// noDryRun is for the actions that do not have the parameter.
func noDryRun(a action) action {
	a.dryRun = false
	return a
}
