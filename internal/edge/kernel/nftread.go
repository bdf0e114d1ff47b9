package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/node"
)

// Counter names of dropped packets, as package intent has them.
const (
	// CounterSpoofed counts packets from a pod's device with a source address
	// that is not the pod's.
	CounterSpoofed = "spoofed"
	// CounterNotIPv4 counts packets from a pod's device that are not IPv4.
	CounterNotIPv4 = "not-ipv4"
)

// readTable lists what our table holds; nothing if there is no table. It is
// several dumps: if the ruleset changed in between they are done again, some
// times; after that the parts are good, each for its own moment.
func (k *Kernel) readTable() ([]node.Object, error) {
	const tries = 3
	for i := 1; ; i++ {
		r := tableReader{conn: k.nft}
		err := r.table()
		missing := errors.Is(err, unix.ENOENT)
		switch {
		case missing && !r.found:
			return nil, nil
		case missing && i < tries: // a set, or the table, went while it was read
		case err != nil:
			return nil, fmt.Errorf("read nftables table %s: %w", node.TableName, err)
		case !r.changed || i == tries:
			return r.objects, nil
		}
	}
}

// tableReader collects our table from its dumps.
type tableReader struct {
	conn       *conn
	objects    []node.Object
	found      bool   // there is a table
	generation uint16 // of the ruleset, as all answers carry it
	changed    bool
}

func (r *tableReader) table() error {
	err := r.conn.get(ourTable.message(unix.NFT_MSG_GETTABLE, 0), func(body []byte) {
		if len(body) < sizeofNfgenmsg {
			return
		}
		r.found, r.generation = true, binary.BigEndian.Uint16(body[2:])
		for kind, value := range behind(body, sizeofNfgenmsg) {
			if kind == unix.NFTA_TABLE_FLAGS && be32(value) != 0 {
				r.odd("table with flags %#x", be32(value)) // 1: it is dormant
			}
		}
	})
	if err != nil {
		return err
	}
	for _, read := range []func() error{r.sets, r.named, r.flowtables, r.chains} {
		if err := read(); err != nil {
			return err
		}
	}
	return nil
}

func (r *tableReader) odd(format string, args ...any) {
	r.objects = append(r.objects, odd{rank: node.RankSet, what: fmt.Sprintf(format, args...)})
}

// list is a dump of what the table holds of a kind.
func list[T any](r *tableReader, kind int, more func(*message), parse func(body []byte) (T, bool)) ([]T, error) {
	return dump(r.conn, func() *message {
		m := ourTable.message(kind, unix.NLM_F_DUMP)
		if more != nil {
			more(m)
		}
		return m
	}, func(body []byte) (T, bool) {
		if len(body) < sizeofNfgenmsg {
			var none T
			return none, false
		}
		r.changed = r.changed || binary.BigEndian.Uint16(body[2:]) != r.generation
		return parse(body)
	})
}

func (r *tableReader) sets() error {
	sets, err := list(r, unix.NFT_MSG_GETSET, nil, parseSet)
	if err != nil {
		return err
	}
	for _, s := range sets {
		r.objects = append(r.objects, s)
		if _, ok := setTypes[s.Type]; !ok {
			continue // it is not wanted, whatever it holds
		}
		elements, err := list(r, unix.NFT_MSG_GETSETELEM, func(m *message) { m.text(unix.NFTA_SET_ELEM_LIST_SET, s.Name) }, parseEntries)
		if err != nil {
			return err
		}
		r.objects = append(r.objects, objects(s, slices.Concat(elements...))...)
	}
	return nil
}

func parseSet(body []byte) (node.Set, bool) {
	var s node.Set
	var t setType
	var dataType uint32
	for kind, value := range behind(body, sizeofNfgenmsg) {
		switch kind {
		case unix.NFTA_SET_NAME:
			s.Name = text(value)
		case unix.NFTA_SET_FLAGS:
			t.flags = be32(value)
		case unix.NFTA_SET_KEY_TYPE:
			t.keyType = be32(value)
		case unix.NFTA_SET_KEY_LEN:
			t.keyLen = be32(value)
		case unix.NFTA_SET_DATA_TYPE:
			dataType = be32(value)
		}
	}
	s.Type = t.name(dataType)
	return s, s.Name != ""
}

// parseEntries reads the elements of one answer.
func parseEntries(body []byte) ([]entry, bool) {
	var all []entry
	body = slices.Clone(body) // keys are parts of it
	for kind, value := range behind(body, sizeofNfgenmsg) {
		if kind != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		for _, elem := range attributes(value) {
			all = append(all, parseEntry(elem))
		}
	}
	return all, true
}

// named is a named object of the table.
type named struct {
	name    string
	kind    uint32
	packets uint64
}

func parseNamed(body []byte) (named, bool) {
	var n named
	for kind, value := range behind(body, sizeofNfgenmsg) {
		switch kind {
		case unix.NFTA_OBJ_NAME:
			n.name = text(value)
		case unix.NFTA_OBJ_TYPE:
			n.kind = be32(value)
		case unix.NFTA_OBJ_DATA:
			for kind, value := range attributes(value) {
				if kind == unix.NFTA_COUNTER_PACKETS && len(value) == 8 {
					n.packets = binary.BigEndian.Uint64(value)
				}
			}
		}
	}
	return n, n.name != ""
}

func (r *tableReader) named() error {
	all, err := list(r, unix.NFT_MSG_GETOBJ, nil, parseNamed)
	for _, n := range all {
		if n.kind == unix.NFT_OBJECT_COUNTER {
			r.objects = append(r.objects, node.Set{Name: n.name, Type: node.TypeCounter})
		} else {
			r.odd("object %s of type %d", n.name, n.kind)
		}
	}
	return err
}

func (r *tableReader) flowtables() error {
	const nameAttr = 2 // NFTA_FLOWTABLE_NAME
	names, err := list(r, unix.NFT_MSG_GETFLOWTABLE, nil, func(body []byte) (string, bool) {
		for kind, value := range behind(body, sizeofNfgenmsg) {
			if kind == nameAttr {
				return text(value), true
			}
		}
		return "", false
	})
	for _, n := range names {
		r.odd("flowtable %s", n)
	}
	return err
}

// Hooks of family inet, by number (enum nf_inet_hooks), and the name of each.
var hookNames = []string{"prerouting", "input", "forward", "output", "postrouting"}

// chains reads the chains and then their rules, all in one dump.
func (r *tableReader) chains() error {
	chains, err := list(r, unix.NFT_MSG_GETCHAIN, nil, parseChain)
	if err != nil {
		return err
	}
	type rule struct{ chain, text string }
	rules, err := list(r, unix.NFT_MSG_GETRULE, nil, func(body []byte) (rule, bool) {
		var out rule
		for kind, value := range behind(body, sizeofNfgenmsg) {
			switch kind {
			case unix.NFTA_RULE_CHAIN:
				out.chain = text(value)
			case unix.NFTA_RULE_EXPRESSIONS:
				out.text = decompile(parseExpressions(value))
			}
		}
		return out, true
	})
	if err != nil {
		return err
	}
	lines := make(map[string][]string)
	for _, rule := range rules {
		lines[rule.chain] = append(lines[rule.chain], rule.text)
	}
	for _, c := range chains {
		c.Rules = strings.Join(lines[c.Name], "\n")
		r.objects = append(r.objects, c)
	}
	return nil
}

// parseChain reads a chain of our table; a dump is of all tables of the family.
func parseChain(body []byte) (node.Chain, bool) {
	var c node.Chain
	var table, kind, more string
	var hook, priority uint32
	based := false
	for attr, value := range behind(body, sizeofNfgenmsg) {
		switch attr {
		case unix.NFTA_CHAIN_TABLE:
			table = text(value)
		case unix.NFTA_CHAIN_NAME:
			c.Name = text(value)
		case unix.NFTA_CHAIN_TYPE:
			kind = text(value)
		case unix.NFTA_CHAIN_POLICY:
			if be32(value) != policyAccept {
				more = fmt.Sprintf(" policy %d", be32(value))
			}
		case unix.NFTA_CHAIN_HOOK:
			based = true
			for attr, value := range attributes(value) {
				switch attr {
				case unix.NFTA_HOOK_HOOKNUM:
					hook = be32(value)
				case unix.NFTA_HOOK_PRIORITY:
					priority = be32(value)
				}
			}
		}
	}
	if based {
		where := fmt.Sprintf("unknown(%d)", hook)
		if int(hook) < len(hookNames) {
			where = hookNames[hook]
		}
		c.Hook = fmt.Sprintf("type %s hook %s priority %d%s", kind, where, int32(priority), more)
	}
	return c, table == node.TableName && c.Name != ""
}

// Dropped reads the counters of packets that pods were not admitted to send,
// by counter name.
func (k *Kernel) Dropped() (map[string]uint64, error) {
	all, err := list(&tableReader{conn: k.nft}, unix.NFT_MSG_GETOBJ, nil, parseNamed)
	if err != nil {
		return nil, fmt.Errorf("read nftables counters: %w", err)
	}
	dropped := make(map[string]uint64)
	for _, n := range all {
		if n.kind == unix.NFT_OBJECT_COUNTER {
			dropped[n.name] = n.packets
		}
	}
	return dropped, nil
}
