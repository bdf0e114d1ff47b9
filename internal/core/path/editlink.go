package path

import (
	"fmt"
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
