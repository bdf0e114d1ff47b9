package ec2sim

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// signature is that of a request, from its header or, of a presigned one, from
// its query string. Source: "Create a signed AWS API request" (Signature Version
// 4), IAM User Guide.
//
//	Authorization: AWS4-HMAC-SHA256 Credential=KEY/20260102/eu-west-1/ec2/aws4_request, SignedHeaders=host;x-amz-date, Signature=0a1b...
type signature struct {
	accessKey                        string
	date, region, service, terminate string // of the scope
	headers                          []string
	value                            string
	at                               time.Time
	token                            string
	life                             time.Duration // of a presigned request; 0: not presigned
}

const (
	algorithm  = "AWS4-HMAC-SHA256"
	scopeEnd   = "aws4_request"
	stampForm  = "20060102T150405Z"
	dayForm    = "20060102"
	maxHeaders = 100
	// maxPresigned is how long a presigned request may be good for.
	maxPresigned = 7 * 24 * time.Hour
)

// readSignature takes a request's signature apart. What it has so far it gives
// also with an error.
func readSignature(r *http.Request) (signature, error) {
	header := r.Header.Get("Authorization")
	if query := r.URL.Query(); header == "" && query.Get("X-Amz-Algorithm") != "" {
		return readPresigned(query)
	}
	s := signature{token: r.Header.Get("X-Amz-Security-Token")}
	if header == "" {
		return s, fail("MissingAuthenticationToken", "The request must contain either a valid (registered) AWS access key ID or X.509 certificate.")
	}
	name, rest, _ := strings.Cut(header, " ")
	if name != algorithm {
		return s, incomplete("Unsupported AWS 'algorithm': '%s'.", name)
	}
	parts := map[string]string{}
	for field := range strings.SplitSeq(rest, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		parts[key] = value
	}
	return s.read(parts["Credential"], parts["SignedHeaders"], parts["Signature"], r.Header.Get("X-Amz-Date"))
}

func readPresigned(query url.Values) (signature, error) {
	s := signature{token: query.Get("X-Amz-Security-Token")}
	if name := query.Get("X-Amz-Algorithm"); name != algorithm {
		return s, incomplete("Unsupported AWS 'algorithm': '%s'.", name)
	}
	seconds, err := strconv.ParseUint(query.Get("X-Amz-Expires"), 10, 32)
	if s.life = time.Duration(seconds) * time.Second; err != nil || seconds == 0 || s.life > maxPresigned {
		return s, incomplete("X-Amz-Expires must be between 1 and %d.", maxPresigned/time.Second)
	}
	return s.read(query.Get("X-Amz-Credential"), query.Get("X-Amz-SignedHeaders"), query.Get("X-Amz-Signature"), query.Get("X-Amz-Date"))
}

func (s signature) read(credential, headers, value, date string) (signature, error) {
	for _, need := range []struct{ name, value string }{
		{"Credential", credential}, {"Signature", value}, {"SignedHeaders", headers},
	} {
		if need.value == "" {
			return s, incomplete("Authorization header requires '%s' parameter.", need.name)
		}
	}
	parts := strings.Split(credential, "/")
	s.accessKey = parts[0]
	if len(parts) != 5 {
		return s, incomplete("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '%s'", credential)
	}
	s.date, s.region, s.service, s.terminate = parts[1], parts[2], parts[3], parts[4]
	s.headers, s.value = strings.Split(headers, ";"), value
	var err error
	if s.at, err = time.Parse(stampForm, date); err != nil {
		return s, incomplete("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
	}
	return s, nil
}

func incomplete(format string, args ...any) error {
	return fail("IncompleteSignature", format, args...)
}

func mismatch(format string, args ...any) error {
	return fail("SignatureDoesNotMatch", format, args...)
}

// check looks at all that can be wrong about a signature before it is known
// whose it is.
func (s signature) check(now time.Time, regionExists bool) error {
	late := maxSkew
	if s.life > 0 {
		late = s.life
	}
	switch {
	case !regionExists:
		return fail("AuthFailure", "Credential should be scoped to a valid region, not '%s'.", s.region)
	case s.service != "ec2":
		return mismatch("Credential should be scoped to correct service: 'ec2'.")
	case s.terminate != scopeEnd:
		return mismatch("Credential should be scoped with a valid terminator: '%s', not '%s'.", scopeEnd, s.terminate)
	case s.date != s.at.Format(dayForm):
		return mismatch("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '%s' != '%s', from '%s'.",
			s.date, s.at.Format(dayForm), s.at.Format(stampForm))
	case len(s.headers) > maxHeaders || !slices.Contains(s.headers, "host"):
		return mismatch("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
	case s.life == 0 && !slices.Contains(s.headers, "x-amz-date"):
		return mismatch("'X-Amz-Date' must be a 'SignedHeader' in the AWS Authorization.")
	case now.After(s.at.Add(late)) || s.at.After(now.Add(maxSkew)):
		return fail("RequestExpired", "Request has expired.")
	}
	return nil
}

// compute is what the signature must be if it was made with the secret: that of
// the request in its canonical form.
func (s signature) compute(r *http.Request, body []byte, secret string) string {
	query := r.URL.Query()
	query.Del("X-Amz-Signature")
	var headers strings.Builder
	for _, name := range s.headers {
		values := slices.Clone(r.Header[textproto.CanonicalMIMEHeaderKey(name)])
		switch {
		case name == "host":
			values = []string{r.Host}
		case name == "content-length" && len(values) == 0:
			values = []string{strconv.FormatInt(r.ContentLength, 10)}
		}
		for i := range values {
			values[i] = strings.Join(strings.Fields(values[i]), " ")
		}
		headers.WriteString(name + ":" + strings.Join(values, ",") + "\n")
	}
	canonical := strings.Join([]string{
		r.Method, "/", strings.ReplaceAll(query.Encode(), "+", "%20"), headers.String(),
		strings.Join(s.headers, ";"), hexSum(body),
	}, "\n")
	scope := strings.Join([]string{s.date, s.region, s.service, s.terminate}, "/")
	text := strings.Join([]string{algorithm, s.at.Format(stampForm), scope, hexSum([]byte(canonical))}, "\n")
	key := []byte("AWS4" + secret)
	for _, part := range []string{s.date, s.region, s.service, s.terminate, text} {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(part))
		key = h.Sum(nil)
	}
	return hex.EncodeToString(key)
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// keepBody lets what is read of a request's body be seen again.
func keepBody(r *http.Request) *bytes.Buffer {
	kept := new(bytes.Buffer)
	if r.Body == nil { // of a request that came over no wire
		return kept
	}
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.TeeReader(r.Body, kept), r.Body}
	return kept
}
