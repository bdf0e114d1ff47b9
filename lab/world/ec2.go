package world

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/fairway-cni/fairway/lab/ec2sim"
)

// ec2Version is that of the Query API.
const ec2Version = "2016-11-15"

// EC2 makes one call of the EC2 Query API, in the lab's own region or another,
// and gives the answer, which is XML. What EC2 refuses is an [*ec2sim.Error].
// [Remote.Settle] waits for what the call changes.
func (r *Remote) EC2(ctx context.Context, action, region string, params url.Values) ([]byte, error) {
	form := url.Values{"Action": {action}, "Version": {ec2Version}}
	for name, list := range params {
		form[name] = list
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://lab/ec2", strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if region != "" {
		// Of a signature the lab's EC2 looks at the scope only.
		req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=lab/20260101/"+region+"/ec2/aws4_request, SignedHeaders=host, Signature=0")
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, r.unreachable(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxStatus))
	if err != nil {
		return nil, fmt.Errorf("read the lab's answer: %w", err)
	}
	if resp.StatusCode == http.StatusOK {
		return b, nil
	}
	var refused struct {
		Code    string `xml:"Errors>Error>Code"`
		Message string `xml:"Errors>Error>Message"`
	}
	if err := xml.Unmarshal(b, &refused); err != nil || refused.Code == "" {
		return nil, errors.Join(fmt.Errorf("ask the lab: %s: %s", resp.Status, b), err)
	}
	return nil, &ec2sim.Error{Code: refused.Code, Message: refused.Message, Status: resp.StatusCode}
}
