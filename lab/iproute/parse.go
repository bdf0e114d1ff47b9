package iproute

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrHelp says that the command line asks how to use the command.
var ErrHelp = errors.New("help asked for")

// SyntaxError is a command line that [Parse] refuses.
type SyntaxError struct {
	Words []string
	At    int // index of the word that is wrong; len(Words): something is missing
	Text  string
}

func (e *SyntaxError) Error() string {
	line := "ip " + strings.Join(e.Words, " ")
	if e.At >= len(e.Words) {
		return fmt.Sprintf("%q: at its end: %s", line, e.Text)
	}
	return fmt.Sprintf("%q: word %d: %s", line, e.At+1, e.Text)
}

// Bounds of a command line. The longest that is of use is far below them.
const (
	maxWords = 64
	maxWord  = 256 // bytes
)

// Parse reads a command line of ip, without its first word. The error is a
// [SyntaxError], or [ErrHelp].
func Parse(args []string) (Request, error) {
	if len(args) > maxWords {
		return Request{}, &SyntaxError{args[:3], 3, fmt.Sprintf("%d words, at most %d", len(args), maxWords)}
	}
	for i, a := range args {
		if len(a) > maxWord {
			return Request{}, &SyntaxError{args[:i], i, fmt.Sprintf("word %d has %d bytes, at most %d", i+1, len(a), maxWord)}
		}
	}
	w, r := &words{all: args}, Request{}
	err := w.options(&r)
	if err == nil {
		err = parseObject(w, &r)
	}
	if err != nil {
		return Request{}, err
	}
	return r, nil
}

func parseObject(w *words, r *Request) error {
	object, err := w.choose("object", "", "address", "route", "rule", "link", "neighbour", "neighbor")
	if err != nil {
		return err
	}
	switch object {
	case "address":
		r.Object = Addresses
		return parseAddress(w, r)
	case "route":
		r.Object = Routes
		return parseRoute(w, r)
	case "rule":
		r.Object = Rules
		return parseRule(w, r)
	case "link":
		r.Object = Links
		return parseLink(w, r)
	}
	r.Object = Neighbours
	return parseNeighbour(w, r)
}

// verbOf takes the verb of an object. Without one it is show; `s` is set, where
// there is that, as in ip.
func verbOf(w *words, r *Request, known ...Verb) error {
	var names []string
	for _, v := range known {
		names = append(names, string(v))
	}
	word, err := w.choose("verb", "show", append(names, "show", "list", "ls")...)
	if word == "list" || word == "ls" {
		word = "show"
	}
	r.Verb = Verb(word)
	return err
}

// ip has more selectors; these are the ones that it takes when rules are made
// by hand. It shows all of them.
var ruleWords = []string{"not", "from", "to", "iif|dev", "oif", "fwmark", "priority|preference|order",
	"table|lookup", "protocol", "suppress_prefixlength", "unreachable", "blackhole", "prohibit"}

func parseRule(w *words, r *Request) error {
	if err := verbOf(w, r, Add, Delete); err != nil {
		return err
	}
	if r.Verb == Show {
		return w.each([]string{"priority|preference|order", "table|lookup"}, func(key string) error {
			if key == "table" {
				t, err := w.table(key)
				r.Filter.Table = t
				return err
			}
			n, err := w.number(key, 32)
			r.Filter.Priority = &n
			return err
		}, nil)
	}
	if w.at == len(w.left) {
		return w.missing("want what the rule is: %s", strings.Join(ruleWords, ", "))
	}
	u := &r.Rule
	if err := w.each(ruleWords, func(key string) error { return w.rule(key, u, &r.Family) }, nil); err != nil {
		return err
	}
	u.Family = r.Family
	if u.Family == unix.AF_UNSPEC {
		u.Family = unix.AF_INET
	}
	if r.Verb == Add {
		if u.Action == actNone {
			u.Action = actTable
		}
		if u.Table == 0 && u.Action == actTable {
			u.Table = unix.RT_TABLE_MAIN
		}
	}
	return nil
}

// rule reads what belongs to a keyword of a rule.
func (w *words) rule(key string, u *Rule, family *uint8) error {
	var n uint32
	var err error
	switch key {
	case "not":
		u.Not = true
	case "from":
		u.From, err = w.prefix(key, family)
	case "to":
		u.To, err = w.prefix(key, family)
	case "iif":
		u.In, err = w.device(key)
	case "oif":
		u.Out, err = w.device(key)
	case "fwmark":
		var m Mark
		m, err = w.mark(key)
		u.Mark = &m
	case "priority":
		n, err = w.number(key, 32)
		u.Priority = &n
	case "table":
		if u.Action != actNone {
			return w.fail("a rule has a table or a type, not both")
		}
		u.Action = actTable
		u.Table, err = w.table(key)
	case "protocol":
		n, err = w.named(key, protocols, 8)
		u.Protocol = uint8(n)
	case "suppress_prefixlength":
		n, err = w.number(key, 32)
		u.SuppressPrefix = &n
	default:
		if u.Action != actNone {
			return w.fail("a rule has a table or a type, not both")
		}
		n, _ = ruleTypes.number(key)
		u.Action = uint8(n)
	}
	return err
}

var addressWords = []string{"dev", "broadcast|brd", "scope", "noprefixroute", "nodad"}

func parseAddress(w *words, r *Request) error {
	if err := verbOf(w, r, Add, Replace, Delete); err != nil {
		return err
	}
	if r.Verb == Show {
		return w.each([]string{"dev", "up"}, func(key string) (err error) {
			if key == "up" {
				r.Filter.Up = true
				return nil
			}
			r.Filter.Device, err = w.device(key)
			return err
		}, func(string) (bool, error) { return w.bareDevice(&r.Filter.Device) })
	}
	a := &r.Address
	var broadcast string
	err := w.each(addressWords, func(key string) (err error) {
		var n uint32
		switch key {
		case "dev":
			a.Device, err = w.device(key)
		case "broadcast":
			broadcast, err = w.value(key)
			if err == nil && broadcast != "+" {
				w.back()
				a.Broadcast, err = w.addr(key, &r.Family)
			}
		case "scope":
			n, err = w.named(key, scopes, 8)
			a.Scope = uint8(n)
		case "noprefixroute":
			a.Flags |= unix.IFA_F_NOPREFIXROUTE
		case "nodad":
			a.Flags |= unix.IFA_F_NODAD
		}
		return err
	}, func(string) (bool, error) {
		if a.Local.IsValid() {
			return false, nil
		}
		w.back()
		p, err := w.prefix("address", &r.Family)
		if err == nil && !p.IsValid() {
			err = w.fail("address: want one such as 10.0.1.5/24")
		}
		a.Local, a.Bits = p.Addr(), p.Bits()
		return true, err
	})
	switch {
	case err != nil:
		return err
	case !a.Local.IsValid():
		return w.missing("want an address, such as 10.0.1.5/24")
	case a.Device == "":
		return w.missing("want dev and a device")
	}
	a.Family = r.Family
	if a.Local.IsLoopback() && a.Local.Is4() && !slices.Contains(w.seen, "scope") {
		a.Scope = unix.RT_SCOPE_HOST
	}
	if broadcast == "+" {
		a.Broadcast = lastOf(a.Local, a.Bits)
	}
	return nil
}

// bareDevice is the name of a device without `dev` in front of it.
func (w *words) bareDevice(device *string) (bool, error) {
	if *device != "" {
		return false, nil
	}
	w.back()
	var err error
	*device, err = w.device("dev")
	return true, err
}

var neighbourWords = []string{"dev", "lladdr", "nud", "router", "to"}

func parseNeighbour(w *words, r *Request) error {
	if err := verbOf(w, r, Add, Replace, Delete); err != nil {
		return err
	}
	n := &r.Neighbour
	known := neighbourWords
	if r.Verb == Show {
		known = []string{"dev", "to"}
	}
	dst := func() (err error) {
		n.Addr, err = w.addr("to", &r.Family)
		return err
	}
	n.State = unix.NUD_PERMANENT
	err := w.each(known, func(key string) (err error) {
		switch key {
		case "dev":
			n.Device, err = w.device(key)
		case "lladdr":
			n.MAC, err = w.mac(key)
		case "nud":
			var v uint32
			v, err = w.named(key, neighbourStates, 8)
			n.State = uint16(v)
		case "router":
			n.Flags |= unix.NTF_ROUTER
		case "to":
			err = dst()
		}
		return err
	}, func(string) (bool, error) {
		if n.Addr.IsValid() {
			return false, nil
		}
		w.back()
		return true, dst()
	})
	if err != nil {
		return err
	}
	if r.Verb == Show {
		r.Filter.Device = n.Device
		if n.Addr.IsValid() {
			r.Filter.Dst, _ = n.Addr.Prefix(n.Addr.BitLen())
		}
		*n = Neighbour{}
		return nil
	}
	switch {
	case !n.Addr.IsValid():
		return w.missing("want the neighbour's address")
	case n.Device == "":
		return w.missing("want dev and a device")
	case r.Verb != Delete && n.MAC == nil && n.State&(unix.NUD_PERMANENT|unix.NUD_REACHABLE) != 0:
		return w.missing("want lladdr and the neighbour's MAC address")
	}
	n.Family = r.Family
	return nil
}
