package ec2sim

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// What the transport gives is what a server sends, without the wait that a
// socket needs.
func TestTransport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Config{})
		_, n := place(t, c)
		for range 50 {
			must(c.CreateNetworkInterface(CreateNetworkInterfaceInput{SubnetID: n.ID}))(t)
		}
		start := time.Now()
		client := &http.Client{Transport: c.Transport()}
		for _, get := range []bool{true, false} {
			form := query("DescribeNetworkInterfaces")
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://anything/?"+form, nil)
			if !get {
				r, err = http.NewRequestWithContext(t.Context(), http.MethodPost, "http://anything", strings.NewReader(form))
			}
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body := must(io.ReadAll(resp.Body))(t)
			if resp.StatusCode != http.StatusOK || resp.Status != "200 OK" || resp.ContentLength != int64(len(body)) ||
				strings.Count(string(body), "<networkInterfaceId>") != 50 || resp.Header.Get("X-Amzn-Requestid") == "" {
				t.Errorf("get %v: %s, %d bytes: %.200s", get, resp.Status, len(body), body)
			}
		}
		resp, err := client.Get("http://anything/?" + query("DeleteVpc", "VpcId=vpc-00000000"))
		if err != nil || resp.StatusCode != http.StatusBadRequest {
			t.Errorf("a refusal: %v, %v", resp, err)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("took %s of a time that stands still", took)
		}
	})
}

// A connection that is broken off, and a client that does not wait for ever.
func TestTransportFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Config{Delay: time.Minute})
		client := &http.Client{Transport: c.Transport(), Timeout: time.Second}
		start := time.Now()
		if _, err := client.Get("http://anything/?" + query("DescribeVpcs")); err == nil || time.Since(start) != time.Second {
			t.Errorf("a slow answer: %v after %s", err, time.Since(start))
		}
		if err := c.SetOutage(OutageRefuse, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Get("http://anything/?" + query("DescribeVpcs")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("an outage: %v", err)
		}
		if calls := c.Calls(time.Time{}); len(calls) != 2 || calls[0].Code != NoAnswer || calls[1].Code != NoAnswer || calls[0].Took != time.Second {
			t.Errorf("calls %+v", calls)
		}
	})
}
