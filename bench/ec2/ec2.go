// Package ec2 measures the lab's EC2 as a controller of a large cluster meets
// it: an account with 10,000 network interfaces, over a real HTTP socket, by an
// unmodified AWS SDK for Go.
//
//	SDK client x 4 -- HTTP, 127.0.0.1 --> ec2sim.Cloud
//
// Two things are asked for: one interface by its identifier, each time another
// one, and all of them, in pages of 1,000. The client's share is in the figures:
// signing, and reading the XML. The floor is the same HTTP exchange with an empty
// answer, by net/http's own client: no API can be faster on this machine.
//
// [Run] ends the goroutines and the socket that it started.
package ec2

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/fairway-cni/fairway/lab/ec2sim"
)

// Env is the outside of the bench.
type Env struct {
	Progress io.Writer
}

// size is how much of everything there is.
type size struct {
	enis   int
	rounds int
	byID   int // calls in a round
	walks  int // in a round
}

var full = size{enis: 10_000, rounds: 8, byID: 2000, walks: 1}

const (
	clients  = 4    // at once
	pageSize = 1000 // the largest that EC2 gives. Source: DescribeNetworkInterfaces, Amazon EC2 API Reference
	region   = "eu-west-1"
)

// Run runs the bench, prints its figures to out, and gives them.
func Run(ctx context.Context, env Env, out io.Writer) (Figures, error) {
	f, err := measure(ctx, env, full)
	if err != nil {
		return Figures{}, err
	}
	return f, f.WriteTable(out)
}

// site is a served cloud and a client of it.
type site struct {
	server *http.Server
	url    string
	client *http.Client
	api    *ec2.Client
	ids    []string // of the interfaces, oldest first
}

func measure(ctx context.Context, env Env, n size) (_ Figures, err error) {
	fmt.Fprintf(env.Progress, "ec2: making %d network interfaces\n", n.enis)
	s, err := open(n)
	if err != nil {
		return Figures{}, err
	}
	defer s.close()
	var f Figures
	for round := range n.rounds {
		fmt.Fprintf(env.Progress, "ec2: round %d of %d\n", round+1, n.rounds)
		floor, err := rate(ctx, n.byID, func(ctx context.Context, _ int) error { return s.empty(ctx) })
		if err != nil {
			return Figures{}, err
		}
		// A stride that shares no factor with the number of interfaces visits
		// them all, and no two neighbours in a row.
		byID, err := rate(ctx, n.byID, func(ctx context.Context, i int) error {
			return s.describe(ctx, s.ids[(i+round)*7919%len(s.ids)])
		})
		if err != nil {
			return Figures{}, err
		}
		var walks []float64
		for range n.walks {
			began := time.Now()
			if err := s.walk(ctx, n.enis); err != nil {
				return Figures{}, err
			}
			walks = append(walks, time.Since(began).Seconds())
		}
		f.floor, f.byID, f.walk = append(f.floor, []float64{floor}), append(f.byID, []float64{byID}), append(f.walk, walks)
	}
	return f, nil
}

// open fills a cloud and serves it on a socket of the loopback device.
func open(n size) (*site, error) {
	cloud := ec2sim.New(ec2sim.Config{Region: region})
	v, err := cloud.CreateVPC(ec2sim.CreateVPCInput{CIDR: netip.MustParsePrefix("10.0.0.0/16")})
	if err != nil {
		return nil, err
	}
	subnet, err := cloud.CreateSubnet(ec2sim.CreateSubnetInput{VPCID: v.ID, CIDR: netip.MustParsePrefix("10.0.0.0/16")})
	if err != nil {
		return nil, err
	}
	s := &site{}
	for i := range n.enis {
		e, err := cloud.CreateNetworkInterface(ec2sim.CreateNetworkInterfaceInput{
			SubnetID: subnet.ID, Description: "pods", Addresses: ec2sim.Addressing{Count: 2},
			Tags: map[string]string{"node": fmt.Sprint("node-", i/3), "cluster": "large"},
		})
		if err != nil {
			return nil, fmt.Errorf("make interface %d: %w", i, err)
		}
		s.ids = append(s.ids, e.ID)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", cloud)
	mux.HandleFunc("POST /empty", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	s.server, s.url = &http.Server{Handler: mux}, "http://"+ln.Addr().String()
	go func() { _ = s.server.Serve(ln) }() // it ends with close
	s.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	s.api = ec2.New(ec2.Options{
		Region: region, BaseEndpoint: aws.String(s.url), Retryer: aws.NopRetryer{}, HTTPClient: s.client,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "secret"}, nil
		}),
	})
	return s, nil
}

func (s *site) close() {
	s.client.CloseIdleConnections()
	s.server.Close()
}

// rate has the clients make n calls, and gives how many there were in a second.
func rate(ctx context.Context, n int, call func(ctx context.Context, i int) error) (float64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	began := time.Now()
	var group sync.WaitGroup
	for k := range clients {
		group.Go(func() {
			for i := k; i < n && ctx.Err() == nil; i += clients {
				if err := call(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	group.Wait()
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	return float64(n) / time.Since(began).Seconds(), nil
}

func (s *site) empty(ctx context.Context) error {
	body := bytes.NewReader([]byte("Action=Empty&Version=2016-11-15"))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/empty", body)
	if err != nil {
		return err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func (s *site) describe(ctx context.Context, id string) error {
	out, err := s.api.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{id}})
	if err != nil {
		return err
	}
	if len(out.NetworkInterfaces) != 1 || *out.NetworkInterfaces[0].NetworkInterfaceId != id {
		return fmt.Errorf("describe %s: %d other interfaces", id, len(out.NetworkInterfaces))
	}
	return nil
}

// walk describes all interfaces, and counts them.
func (s *site) walk(ctx context.Context, want int) error {
	pages := ec2.NewDescribeNetworkInterfacesPaginator(s.api, &ec2.DescribeNetworkInterfacesInput{MaxResults: aws.Int32(pageSize)})
	seen := map[string]bool{}
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, e := range page.NetworkInterfaces {
			seen[*e.NetworkInterfaceId] = true
		}
	}
	if len(seen) != want {
		return fmt.Errorf("a walk found %d interfaces of %d", len(seen), want)
	}
	return nil
}
