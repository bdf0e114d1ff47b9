package kubernetes

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fairway-cni/fairway/lab/fabric/netns"
)

// client asks the API server the few things that the lab itself wants to know.
type client struct {
	server string
	http   *http.Client
	pid    atomic.Int64 // of a process in the control plane's network namespace
}

// answerTime bounds one question, maxAnswer its answer in bytes.
const (
	answerTime = 5 * time.Second
	maxAnswer  = 4 << 20
)

func newClient(server netip.AddrPort, ca []byte, who pair) (*client, error) {
	cert, err := tls.X509KeyPair(who.cert, who.key)
	if err != nil {
		return nil, fmt.Errorf("load administrator's certificate: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	c := &client{server: "https://" + server.String()}
	c.http = &http.Client{Timeout: answerTime, Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots, MinVersion: tls.VersionTLS13},
		DialContext:       c.dial,
		DisableKeepAlives: true, // the instance may be another one by the next time
	}}
	return c, nil
}

// enter says in whose network namespace the API server is found.
func (c *client) enter(pid int) { c.pid.Store(int64(pid)) }

func (c *client) dial(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	ns, err := os.Open(filepath.Join("/proc", strconv.FormatInt(c.pid.Load(), 10), "ns/net"))
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	err = netns.Do(ns, func() error {
		var d net.Dialer
		conn, err = d.DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// get asks for an object; into may be nil.
func (c *client) get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.server+path, nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("get %s: %w", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s", path, resp.Status)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("get %s: %w", path, err)
	}
	return nil
}

// noNetwork is what a node says that is ready but for its network plugin. Source:
// networkPluginNotReady of pkg/kubelet/container in Kubernetes.
const noNetwork = "NetworkPluginNotReady"

// nodeJoined says why a node cannot be used, if only for the want of a network.
func (c *client) nodeJoined(ctx context.Context, name string) error {
	var n struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := c.get(ctx, "/api/v1/nodes/"+name, &n); err != nil {
		return err
	}
	for _, is := range n.Status.Conditions {
		if is.Type != "Ready" {
			continue
		}
		if is.Status == "True" || strings.Contains(is.Message, noNetwork) {
			return nil
		}
		return fmt.Errorf("node %s is not ready: %s", name, is.Message)
	}
	return errors.New("node " + name + " has not said how it is")
}

// HTTP gives a client of the API server, as the administrator, and the server's
// base address. It is for many questions and for long answers, such as those of a
// watch: connections are kept, and the caller's context bounds each.
func (c *Cluster) HTTP() (client *http.Client, server string) {
	t := c.client.http.Transport.(*http.Transport).Clone()
	t.DisableKeepAlives, t.MaxIdleConnsPerHost = false, 16
	return &http.Client{Transport: t}, c.client.server
}
