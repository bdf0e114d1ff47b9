package path

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// editMTU sets a device's, in bytes.
func (n *Namespace) editMTU(device, bytes string) error {
	mtu, err := strconv.Atoi(bytes)
	i := slices.IndexFunc(n.Devices.Value, func(d Device) bool { return d.Name == device })
	if !n.Devices.Known || err != nil || mtu < 68 || i < 0 { // RFC 791: every link takes 68
		return fmt.Errorf("%w: no device %s, or no such MTU %s", ErrEdit, device, bytes)
	}
	devices := slices.Clone(n.Devices.Value)
	devices[i].MTU = mtu
	n.Devices = Known(devices)
	return nil
}

// addTable adds a table of nftables, written as one line: table FAMILY NAME {
// chain NAME { RULE; RULE; } }.
func (n *Namespace) addTable(f []string) error {
	if !n.Nftables.Known {
		return fmt.Errorf("%w: %s", ErrEdit, n.Nftables.unknown("nftables"))
	}
	var lines []string
	line := []string{}
	end := func() {
		if len(line) > 0 {
			lines = append(lines, strings.Join(line, " "))
		}
		line = line[:0]
	}
	hook := false // what a chain hooks in at is one line with two semicolons
	inner := 0    // braces in a rule
	for _, w := range nftWords(strings.Join(f, " ")) {
		block := len(line) > 0 && (line[0] == "table" || line[0] == "chain")
		switch {
		case w == "{" && !block:
			inner++
		case w == "}" && inner > 0:
			inner--
		case w == "{":
			line = append(line, w)
			end()
			continue
		case w == "}":
			end()
			lines = append(lines, w)
			continue
		case w == ";" && hook:
			hook = false
			line = append(line, w, "policy", "accept", ";")
			end()
			continue
		case w == ";":
			end()
			continue
		}
		hook = hook || len(line) == 0 && w == "type"
		line = append(line, unword(w))
	}
	end()
	r, err := ParseRuleset(append(slices.Clone(n.Nftables.Value.text), lines...))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrEdit, err)
	}
	n.Nftables = Known(r)
	return nil
}

// unword closes the quote that a word of nftables begins with.
func unword(w string) string {
	if strings.HasPrefix(w, "\"") {
		return w + "\""
	}
	return w
}

// switches are the sysctls of a device that the walk asks for.
var switches = []string{"accept_local", "forwarding", "proxy_arp", "rp_filter", "src_valid_mark"}

// editSysctl reads [-w] NAME=VALUE, with blanks around the equals sign or not.
func (n *Namespace) editSysctl(text string) error {
	name, value, ok := strings.Cut(strings.TrimPrefix(text, "-w "), "=")
	name, value = strings.TrimSpace(name), strings.TrimSpace(value)
	if _, err := strconv.Atoi(value); !ok || err != nil {
		return fmt.Errorf("%w: want sysctl NAME=NUMBER", ErrEdit)
	}
	path := sysctlPath(name)
	f := strings.Split(path, "/")
	device := len(f) == 5 && strings.HasPrefix(path, "net/ipv4/conf/") && slices.Contains(switches, f[4])
	switch {
	case path != "net/ipv4/ip_forward" && !device:
		return fmt.Errorf("%w: nothing here is decided by %s; what is: net.ipv4.ip_forward, and of net.ipv4.conf.DEVICE %s", ErrEdit, name, strings.Join(switches, ", "))
	case device && f[3] != "all" && f[3] != "default" && n.Devices.Known && n.device(f[3]) == nil:
		return fmt.Errorf("%w: no device %s", ErrEdit, f[3])
	}
	m := maps.Clone(n.Sysctls.Value)
	if m == nil {
		m = map[string]string{}
	}
	m[path] = value
	// Forwarding is one switch for all (inet_forward_change, devinet.c): who sets it
	// sets each device's.
	if path == "net/ipv4/ip_forward" || path == "net/ipv4/conf/all/forwarding" {
		m["net/ipv4/ip_forward"] = value
		for k := range m {
			if strings.HasPrefix(k, "net/ipv4/conf/") && strings.HasSuffix(k, "/forwarding") {
				m[k] = value
			}
		}
	}
	n.Sysctls = Known(m)
	return nil
}

// sysctlPath turns net.ipv4.conf.eth0.rp_filter into its path; a slash in a name
// is a dot of a device's, as sysctl(8) has it.
func sysctlPath(name string) string {
	if strings.HasPrefix(name, "net/") {
		return name
	}
	return strings.NewReplacer(".", "/", "/", ".").Replace(name)
}
