package hostnet

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/fairway-cni/fairway/internal/core/path"
)

// switches are the sysctls of a device that package path asks for.
var switches = []string{"accept_local", "forwarding", "proxy_arp", "rp_filter", "src_valid_mark"}

// sysctls reads the switches of all devices. /proc/sys/net shows the namespace of
// the thread that opens a file.
func sysctls(links []link) (map[string]string, error) {
	all := map[string]string{}
	read := func(name string) error {
		b, err := os.ReadFile("/proc/sys/" + name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a device that went, or no IPv4 on it
		}
		if err != nil {
			return fmt.Errorf("read sysctl: %w", err)
		}
		all[name] = strings.TrimSpace(string(b))
		return nil
	}
	if err := read("net/ipv4/ip_forward"); err != nil {
		return nil, err
	}
	devices := []string{"all"}
	for _, l := range links {
		devices = append(devices, l.Name)
	}
	for _, d := range devices {
		for _, s := range switches {
			if err := read("net/ipv4/conf/" + d + "/" + s); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// listening lists the sockets that take IPv4 packets from anybody. One for IPv6
// that is bound to all addresses takes IPv4 too, unless it was made not to,
// which /proc does not say.
func listening() ([]path.Socket, error) {
	var all []path.Socket
	for _, f := range []struct {
		file  string
		proto path.Proto
	}{{"tcp", path.TCP}, {"tcp6", path.TCP}, {"udp", path.UDP}, {"udp6", path.UDP}} {
		r, err := os.Open("/proc/thread-self/net/" + f.file)
		if errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(f.file, "6") {
			continue // no IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("list sockets: %w", err)
		}
		some, err := parseSockets(r, f.proto)
		r.Close()
		if err != nil {
			return nil, fmt.Errorf("list sockets of %s: %w", f.file, err)
		}
		all = append(all, some...)
	}
	slices.SortFunc(all, func(a, b path.Socket) int {
		if c := strings.Compare(string(a.Proto), string(b.Proto)); c != 0 {
			return c
		}
		if c := int(a.Port) - int(b.Port); c != 0 {
			return c
		}
		return a.Addr.Compare(b.Addr)
	})
	return slices.Compact(all), nil
}

// States of a socket that take a first packet (include/net/tcp_states.h); UDP's
// without a peer is shown as closed.
const (
	stateListen = "0A"
	stateClosed = "07"
)

// parseSockets reads a list as /proc/net/tcp and udp are.
func parseSockets(r io.Reader, proto path.Proto) ([]path.Socket, error) {
	var all []path.Socket
	lines := bufio.NewScanner(r)
	for n := 0; lines.Scan(); n++ {
		f := strings.Fields(lines.Text())
		if n == 0 || len(f) < 4 || proto == path.TCP && f[3] != stateListen || proto == path.UDP && f[3] != stateClosed {
			continue
		}
		addr, port, ok := strings.Cut(f[1], ":")
		p, err := strconv.ParseUint(port, 16, 16)
		b, err2 := hex.DecodeString(addr)
		if !ok || err != nil || err2 != nil {
			return nil, fmt.Errorf("line %q is of another form", lines.Text())
		}
		a, ok := socketAddr(b)
		if ok {
			all = append(all, path.Socket{Proto: proto, Addr: a, Port: uint16(p)})
		}
	}
	return all, lines.Err()
}

// socketAddr reads an address, which /proc writes as 32-bit numbers of the host.
func socketAddr(b []byte) (netip.Addr, bool) {
	swapped := make([]byte, 0, 16)
	for ; len(b) >= 4; b = b[4:] {
		swapped = append(swapped, bytesOf(b)...)
	}
	a, ok := netip.AddrFromSlice(swapped)
	switch {
	case !ok:
		return a, false
	case a == netip.IPv6Unspecified():
		return netip.IPv4Unspecified(), true
	}
	a = a.Unmap()
	return a, a.Is4()
}

// bytesOf is a 32-bit number of the host, printed in hex, as bytes in order.
func bytesOf(b []byte) []byte {
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	return bytes32(v)
}
