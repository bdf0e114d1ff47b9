package iproute

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// words is the reading of a command line.
type words struct {
	all  []string
	left []int // indexes of the words that are not options
	at   int   // index into left of the next one to be read
	seen []string
}

// options takes what begins with "-" out of the line, wherever it is: no other
// word does.
func (w *words) options(r *Request) error {
	for i := 0; i < len(w.all); i++ {
		a := w.all[i]
		if !strings.HasPrefix(a, "-") {
			w.left = append(w.left, i)
			continue
		}
		switch a {
		case "-4":
			r.Family = unix.AF_INET
		case "-6":
			r.Family = unix.AF_INET6
		case "-j", "-json", "--json", "-o=json", "--output=json":
			r.JSON = true
		case "-o", "--output":
			i++
			if i == len(w.all) || w.all[i] != "json" {
				return &SyntaxError{w.all, i, a + ": want json after it"}
			}
			r.JSON = true
		case "-h", "-help", "--help":
			return ErrHelp
		default:
			return &SyntaxError{w.all, i, fmt.Sprintf("unknown option %q; known: -4, -6, -j, -o json", a)}
		}
	}
	return nil
}

func (w *words) take() (string, bool) {
	if w.at == len(w.left) {
		return "", false
	}
	w.at++
	return w.all[w.left[w.at-1]], true
}

// back gives the word taken last back, for a reader that takes its own.
func (w *words) back() { w.at-- }

// fail is about the word taken last.
func (w *words) fail(format string, args ...any) error {
	return &SyntaxError{w.all, w.left[w.at-1], fmt.Sprintf(format, args...)}
}

// missing is about a word that should have come.
func (w *words) missing(format string, args ...any) error {
	return &SyntaxError{w.all, len(w.all), fmt.Sprintf(format, args...)}
}

// choose takes a word that may be cut short: of several that it could be, it is
// the first, as in ip (`r` is route). Where there is a fallback the line may end here.
func (w *words) choose(what, fallback string, known ...string) (string, error) {
	word, ok := w.take()
	switch {
	case !ok && fallback != "":
		return fallback, nil
	case !ok:
		return "", w.missing("want an %s: %s", what, strings.Join(known, ", "))
	case word == "help":
		return "", ErrHelp
	}
	for _, k := range known {
		if k == word {
			return k, nil
		}
	}
	for _, k := range known {
		if word != "" && strings.HasPrefix(k, word) {
			return k, nil
		}
	}
	return "", w.fail("unknown %s %q; known here: %s", what, word, strings.Join(known, ", "))
}

// keyword finds which of the known ones a word is: itself, or the only one that
// begins with it. One that has several names has them as "table|lookup"; what
// comes back is the first.
func keyword(word string, known []string) (string, bool) {
	var found []string
	for _, k := range known {
		names := strings.Split(k, "|")
		if slices.Contains(names, word) {
			return names[0], true
		}
		begins := func(name string) bool { return len(word) > 1 && strings.HasPrefix(name, word) }
		if slices.ContainsFunc(names, begins) {
			found = append(found, names[0])
		}
	}
	if len(found) != 1 {
		return "", false
	}
	return found[0], true
}

// each reads keywords to the end of the line. A word that is none of them is for
// other, which says whether it can be.
func (w *words) each(known []string, read func(key string) error, other func(word string) (bool, error)) error {
	for {
		word, ok := w.take()
		if !ok {
			return nil
		}
		if word == "help" {
			return ErrHelp
		}
		key, ok := keyword(word, known)
		if ok {
			if slices.Contains(w.seen, key) {
				return w.fail("%s is said twice", key)
			}
			w.seen = append(w.seen, key)
			if err := read(key); err != nil {
				return err
			}
			continue
		}
		if other != nil {
			fits, err := other(word)
			if err != nil {
				return err
			}
			if fits {
				continue
			}
		}
		return w.fail("unknown word %q; known here: %s", word, strings.Join(known, ", "))
	}
}

// value takes the word after a keyword.
func (w *words) value(key string) (string, error) {
	word, ok := w.take()
	if !ok {
		return "", w.missing("%s wants a value after it", key)
	}
	return word, nil
}

func (w *words) number(key string, bits int) (uint32, error) {
	return w.named(key, nil, bits)
}

// named takes a number, or its name.
func (w *words) named(key string, n naming, bits int) (uint32, error) {
	word, err := w.value(key)
	if err != nil {
		return 0, err
	}
	var v uint32
	if n == nil {
		v, err = number(word, bits)
	} else {
		v, err = named(n, word, bits)
	}
	if err != nil {
		return 0, w.fail("%s %v", key, err)
	}
	return v, nil
}

func (w *words) table(key string) (uint32, error) {
	t, err := w.named(key, tables, 32)
	if err == nil && t == 0 {
		return 0, w.fail("%s 0: there is no such table; want %s, or a number from 1 on", key, tables.names())
	}
	return t, err
}

// device takes a name that a device can have (dev_valid_name in net/core/dev.c).
func (w *words) device(key string) (string, error) {
	name, err := w.value(key)
	if err != nil {
		return "", err
	}
	if name == "" || name == "." || name == ".." || len(name) >= unix.IFNAMSIZ || strings.ContainsAny(name, "/: \t\n\v\f\r\x00") {
		return "", w.fail("%s %q: no device can have this name", key, name)
	}
	return name, nil
}

// mark takes V or V/M.
func (w *words) mark(key string) (Mark, error) {
	word, err := w.value(key)
	if err != nil {
		return Mark{}, err
	}
	value, mask, masked := strings.Cut(word, "/")
	m := Mark{Mask: ^uint32(0)}
	if m.Value, err = number(value, 32); err != nil {
		return m, w.fail("%s %v", key, err)
	}
	if masked {
		if m.Mask, err = number(mask, 32); err != nil {
			return m, w.fail("%s: mask %v", key, err)
		}
	}
	return m, nil
}

func (w *words) mac(key string) (net.HardwareAddr, error) {
	word, err := w.value(key)
	if err != nil {
		return nil, err
	}
	m, err := net.ParseMAC(word)
	if err != nil || len(m) != 6 {
		return nil, w.fail("%s %q: want an address such as 02:00:00:00:00:01", key, word)
	}
	return m, nil
}

// addr takes an address, which must be of the request's family. It decides the
// family where nothing has yet.
func (w *words) addr(key string, family *uint8) (netip.Addr, error) {
	word, err := w.value(key)
	if err != nil {
		return netip.Addr{}, err
	}
	a, err := netip.ParseAddr(word)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return netip.Addr{}, w.fail("%s %q: want an address such as 10.0.1.1", key, word)
	}
	return a, w.family(a, family)
}

// prefix takes a prefix, an address, which stands for the prefix of it alone, or
// "default", "all" or "any", which stand for all and come back invalid. Bits
// beyond the prefix are kept: it is the kernel that refuses them, or not.
func (w *words) prefix(key string, family *uint8) (netip.Prefix, error) {
	word, err := w.value(key)
	if err != nil {
		return netip.Prefix{}, err
	}
	p, ok := prefixOf(word)
	switch {
	case !ok:
		return p, w.fail("%s %q: want a prefix such as 10.0.0.0/16, an address, or default", key, word)
	case !p.IsValid():
		return p, nil
	}
	return p, w.family(p.Addr(), family)
}

func prefixOf(word string) (netip.Prefix, bool) {
	if slices.Contains([]string{"default", "all", "any"}, word) {
		return netip.Prefix{}, true
	}
	p, err := netip.ParsePrefix(word)
	if err != nil {
		a, err := netip.ParseAddr(word)
		if err != nil || a.Zone() != "" {
			return p, false
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	return p, !p.Addr().Is4In6()
}

func (w *words) family(a netip.Addr, family *uint8) error {
	is := familyOf(a)
	if *family == unix.AF_UNSPEC {
		*family = is
	}
	if *family != is {
		return w.fail("%s is %s, and the rest of the line is about %s", a, familyName(is), familyName(*family))
	}
	return nil
}

func familyOf(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func familyName(f uint8) string {
	if f == unix.AF_INET6 {
		return "IPv6"
	}
	return "IPv4"
}
