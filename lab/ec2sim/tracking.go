package ec2sim

import "time"

// ConnectionTracking is how long an ENI's groups remember idle flows; a zero is
// the default. Whole seconds.
type ConnectionTracking struct {
	TCPEstablished, UDPStream, UDP time.Duration
}

// check holds the values to EC2's ranges. Source: ConnectionTrackingSpecificationRequest,
// Amazon EC2 API Reference.
func (c ConnectionTracking) check() error {
	for _, v := range []struct {
		name     string
		value    time.Duration
		low, top time.Duration
	}{
		{"TcpEstablishedTimeout", c.TCPEstablished, 60 * time.Second, 432_000 * time.Second},
		{"UdpStreamTimeout", c.UDPStream, 60 * time.Second, 180 * time.Second},
		{"UdpTimeout", c.UDP, 30 * time.Second, 60 * time.Second},
	} {
		if v.value != 0 && (v.value < v.low || v.value > v.top) {
			return invalidValue("Value (%d) for parameter %s is invalid. It must be from %d to %d.",
				int(v.value.Seconds()), v.name, int(v.low.Seconds()), int(v.top.Seconds()))
		}
	}
	return nil
}

// with gives the values of c, and of old where c has none.
func (c ConnectionTracking) with(old ConnectionTracking) ConnectionTracking {
	if c.TCPEstablished == 0 {
		c.TCPEstablished = old.TCPEstablished
	}
	if c.UDPStream == 0 {
		c.UDPStream = old.UDPStream
	}
	if c.UDP == 0 {
		c.UDP = old.UDP
	}
	return c
}

func parseTracking(f form) ConnectionTracking {
	seconds := func(name string) time.Duration { return time.Duration(f.in(name).count(1)) * time.Second }
	return ConnectionTracking{TCPEstablished: seconds("TcpEstablishedTimeout"), UDPStream: seconds("UdpStreamTimeout"), UDP: seconds("UdpTimeout")}
}

type xmlTracking struct {
	TCPEstablished int `xml:"tcpEstablishedTimeout,omitempty"`
	UDPStream      int `xml:"udpStreamTimeout,omitempty"`
	UDP            int `xml:"udpTimeout,omitempty"`
}

func showTracking(c ConnectionTracking) *xmlTracking {
	if c == (ConnectionTracking{}) {
		return nil
	}
	return &xmlTracking{int(c.TCPEstablished.Seconds()), int(c.UDPStream.Seconds()), int(c.UDP.Seconds())}
}
