package ec2sim_test

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func sum(text string) string {
	s := sha256.Sum256([]byte(text))
	return hex.EncodeToString(s[:])
}

// FuzzSignature holds that no header gets in without credentials, or makes the
// server panic.
func FuzzSignature(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=AKID/20260102/eu-west-1/ec2/aws4_request, SignedHeaders=host;x-amz-date, Signature=00", "20260102T033000Z", "dG9rZW4=", "")
	f.Add("AWS4-HMAC-SHA256 Credential=////, SignedHeaders=;;, Signature=", "", "", "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=99999999999")
	f.Add("Basic eA==", "yesterday", strings.Repeat("A", 400), "X-Amz-Algorithm=x&X-Amz-Credential=a/b/c/d/e")
	f.Fuzz(func(t *testing.T, header, date, token, query string) {
		g := guard(t, allowAll)
		r := httptest.NewRequest(http.MethodGet, "http://ec2/", nil)
		r.URL.RawQuery = "Action=DescribeVpcs&Version=2016-11-15&" + query
		r.Header.Set("Authorization", header)
		r.Header.Set("X-Amz-Date", date)
		r.Header.Set("X-Amz-Security-Token", token)
		w := httptest.NewRecorder()
		if g.ServeHTTP(w, r); w.Code == http.StatusOK {
			t.Errorf("let in: %q %q %q %q", header, date, token, query)
		}
	})
}
