package hostnet

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/path/sighting"
)

// TestSend finds a pod by its address, and sends from the node: to who answers, to who
// refuses, to who says nothing, and to where there is no way.
func TestSend(t *testing.T) {
	ground(t)
	host := netip.MustParseAddr("10.211.7.4")
	if _, err := OpenPod(netip.MustParseAddr("10.99.9.9")); !errors.Is(err, ErrNotHere) {
		t.Errorf("an address that nobody has: %v", err)
	}
	pod, err := OpenPod(netip.MustParseAddr("10.211.7.9"))
	if err != nil {
		t.Fatal(err)
	}
	defer pod.Close()
	if !slices.Contains(slices.Collect(maps.Values(pod.Devices)), "eth0") {
		t.Errorf("the pod's devices: %v", pod.Devices)
	}
	node, has, err := OpenNode(host)
	if err != nil || !has {
		t.Fatalf("the node's own address: %v, %v", has, err)
	}
	defer node.Close()
	if _, has, err := OpenNode(netip.MustParseAddr("10.211.7.9")); has || err != nil {
		t.Errorf("the pod's address is the node's: %v, %v", has, err)
	}
	tcp, err := net.Listen("tcp4", "10.211.7.4:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp4", "10.211.7.4:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	go func() { // ends with the socket
		for b := make([]byte, 64); ; {
			n, from, err := udp.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo(b[:n], from)
		}
	}()
	mute, err := net.ListenPacket("udp4", "10.211.7.4:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	at := func(a net.Addr) netip.AddrPort { return netip.MustParseAddrPort(a.String()) }
	for _, c := range []struct {
		name  string
		proto path.Proto
		to    netip.AddrPort
		want  sighting.Answered
	}{
		{"tcp", path.TCP, at(tcp.Addr()), sighting.Yes},
		{"tcp refused", path.TCP, netip.AddrPortFrom(host, 1), sighting.Refused},
		{"udp", path.UDP, at(udp.LocalAddr()), sighting.Yes},
		{"udp refused", path.UDP, netip.AddrPortFrom(host, 1), sighting.Refused},
		{"udp mute", path.UDP, at(mute.LocalAddr()), sighting.Silence},
		{"icmp", path.ICMP, netip.AddrPortFrom(host, 0), sighting.Yes},
		{"no way", path.TCP, netip.MustParseAddrPort("224.0.0.1:80"), sighting.Failed},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if c.want == sighting.Silence {
				cancel() // one look at the socket, and no more
			}
			s, err := Load(node.File, c.proto, c.to, 200)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if c.proto != path.ICMP && s.Port == 0 {
				t.Error("no port")
			}
			trip, err := s.Fire(ctx)
			if err != nil || trip.Answered != c.want || trip.Answered == sighting.Failed && trip.Error == "" {
				t.Errorf("%+v, %v, want %s", trip, err, c.want)
			}
		})
	}
}
