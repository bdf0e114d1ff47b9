package apply

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/intent"
	"github.com/fairway-cni/fairway/internal/core/node"
)

// errIncomplete says that the kernel's list of a set's elements lacks some, which
// happens while it enlarges the set.
var errIncomplete = errors.New("the kernel's list is not complete")

// state is what a kernel holds of ours, in its own words. Of each thing only
// what can be sent back is kept: no handles, no counts of users.
type state struct {
	routes, neighbors, rules                  []message // of routing
	objects, sets, chains, chainRules, inSets []message // of nftables
}

const (
	sizeofRuleHdr  = 12 // struct fib_rule_hdr, include/uapi/linux/fib_rules.h
	sizeofNfgenmsg = 4  // struct nfgenmsg, include/uapi/linux/netfilter/nfnetlink.h
	nftables       = unix.NFNL_SUBSYS_NFTABLES << 8
)

var inet = []byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0} // struct nfgenmsg

// record asks the kernel.
func record(route, filter *conn, s intent.Snapshot) (state, error) {
	var st state
	var errs []error
	list := func(c *conn, question message, size int, kinds []int, wanted func(body []byte) bool) []message {
		all, err := c.dump(question)
		errs = append(errs, err)
		var out []message
		for _, m := range all {
			if len(m.body()) < size || !wanted(m.body()) {
				continue
			}
			kind := int(binary.NativeEndian.Uint16(m[4:]))
			out = append(out, newMessage(kind, 0, m.body()[:size], keep(m.body()[size:], kinds...)))
		}
		return out
	}
	question := func(kind, size int) message {
		return newMessage(kind, 0, append([]byte{unix.AF_INET}, make([]byte, size-1)...))
	}
	st.routes = list(route, question(unix.RTM_GETROUTE, unix.SizeofRtMsg), unix.SizeofRtMsg,
		[]int{unix.RTA_TABLE, unix.RTA_DST, unix.RTA_PRIORITY, unix.RTA_GATEWAY, unix.RTA_PREFSRC, unix.RTA_OIF},
		func(b []byte) bool { return b[5] == node.Protocol })
	pods := make(map[string]bool)
	for _, p := range s.Pods {
		pods[string(p.Addr.AsSlice())] = true
	}
	st.neighbors = list(route, question(unix.RTM_GETNEIGH, unix.SizeofNdMsg), unix.SizeofNdMsg, []int{unix.NDA_DST, unix.NDA_LLADDR},
		func(b []byte) bool { return pods[string(value(b[unix.SizeofNdMsg:], unix.NDA_DST))] })
	st.rules = list(route, question(unix.RTM_GETRULE, sizeofRuleHdr), sizeofRuleHdr,
		[]int{unix.FRA_PRIORITY, unix.FRA_SRC, unix.FRA_TABLE, unix.FRA_FWMARK, unix.FRA_FWMASK, unix.FRA_PROTOCOL},
		func(b []byte) bool {
			return bytes.Equal(value(b[sizeofRuleHdr:], unix.FRA_PROTOCOL), []byte{node.Protocol})
		})

	table := attr(1, []byte(node.TableName+"\x00")) // NFTA_*_TABLE is 1 everywhere
	any := func([]byte) bool { return true }
	ask := func(kind int, more ...[]byte) message {
		return newMessage(nftables|kind, 0, append([][]byte{inet, table}, more...)...)
	}
	// The generation of the table, at the end of struct nfgenmsg, is kept nowhere.
	strip := func(all []message) []message {
		for _, m := range all {
			copy(m.body(), inet)
		}
		return all
	}
	st.objects = strip(list(filter, ask(unix.NFT_MSG_GETOBJ), sizeofNfgenmsg,
		[]int{unix.NFTA_OBJ_TABLE, unix.NFTA_OBJ_NAME, unix.NFTA_OBJ_TYPE}, any))
	st.sets = strip(list(filter, ask(unix.NFT_MSG_GETSET), sizeofNfgenmsg,
		[]int{unix.NFTA_SET_TABLE, unix.NFTA_SET_NAME, unix.NFTA_SET_FLAGS, unix.NFTA_SET_KEY_TYPE, unix.NFTA_SET_KEY_LEN,
			unix.NFTA_SET_DATA_TYPE, unix.NFTA_SET_DATA_LEN, unix.NFTA_SET_DESC, unix.NFTA_SET_USERDATA}, any))
	st.chains = strip(list(filter, ask(unix.NFT_MSG_GETCHAIN), sizeofNfgenmsg,
		[]int{unix.NFTA_CHAIN_TABLE, unix.NFTA_CHAIN_NAME, unix.NFTA_CHAIN_HOOK, unix.NFTA_CHAIN_POLICY, unix.NFTA_CHAIN_TYPE}, any))
	st.chainRules = strip(list(filter, ask(unix.NFT_MSG_GETRULE), sizeofNfgenmsg,
		[]int{unix.NFTA_RULE_TABLE, unix.NFTA_RULE_CHAIN, unix.NFTA_RULE_EXPRESSIONS}, any))
	for _, m := range st.sets {
		name := value(m.body()[sizeofNfgenmsg:], unix.NFTA_SET_NAME)
		st.inSets = append(st.inSets, strip(list(filter, ask(unix.NFT_MSG_GETSETELEM, attr(unix.NFTA_SET_ELEM_LIST_SET, name)), sizeofNfgenmsg,
			[]int{unix.NFTA_SET_ELEM_LIST_TABLE, unix.NFTA_SET_ELEM_LIST_SET, unix.NFTA_SET_ELEM_LIST_ELEMENTS}, any))...)
	}
	if err := errors.Join(errs...); err != nil {
		return st, fmt.Errorf("list what the kernel holds: %w", err)
	}
	// One for the device of every pod, and those of the ENIs.
	if n := len(elements(st.inSets)); n < len(s.Pods) || len(st.neighbors) != len(s.Pods) {
		return st, fmt.Errorf("%w: %d elements and %d neighbours, want %d", errIncomplete, n, len(st.neighbors), len(s.Pods))
	}
	return st, nil
}

// batches is one transmission for routing and one for nftables.
type batches struct{ route, filter batch }

func (b batches) send(route, filter *conn) error {
	if err := route.send(b.route); err != nil {
		return fmt.Errorf("routing: %w", err)
	}
	if err := filter.send(b.filter); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	return nil
}

// rebuild is the floor.
func (s state) rebuild() batches {
	const create = unix.NLM_F_CREATE
	var routing, filter []message
	for _, m := range slices.Concat(s.routes, s.neighbors, s.rules) {
		routing = append(routing, as(m, 0, create|unix.NLM_F_EXCL))
	}
	table := newMessage(nftables|unix.NFT_MSG_NEWTABLE, create, inet, attr(unix.NFTA_TABLE_NAME, []byte(node.TableName+"\x00")))
	filter = append(filter, table)
	for _, m := range s.objects {
		// The kernel wants to be told what the counter is to be made of: nothing.
		filter = append(filter, as(m, 0, create, attr(unix.NFTA_OBJ_DATA|unix.NLA_F_NESTED, nil)))
	}
	for i, m := range s.sets {
		id := binary.BigEndian.AppendUint32(nil, uint32(i+1))
		filter = append(filter, as(m, 0, create, attr(unix.NFTA_SET_ID, id)))
	}
	for _, m := range s.chains {
		filter = append(filter, as(m, 0, create))
	}
	for _, m := range s.chainRules {
		filter = append(filter, as(m, 0, create|unix.NLM_F_APPEND))
	}
	for _, m := range s.inSets {
		filter = append(filter, as(m, 0, create))
	}
	return batches{number(routing, len(routing)-1), transaction(filter)}
}

// remove takes away all that rebuild brings.
func (s state) remove() batches {
	var routing []message
	for _, part := range []struct {
		kind int
		all  []message
	}{
		{unix.RTM_DELRULE, s.rules}, {unix.RTM_DELROUTE, s.routes}, {unix.RTM_DELNEIGH, s.neighbors},
	} {
		for _, m := range part.all {
			routing = append(routing, as(m, part.kind, 0))
		}
	}
	table := newMessage(nftables|unix.NFT_MSG_DELTABLE, 0, inet, attr(unix.NFTA_TABLE_NAME, []byte(node.TableName+"\x00")))
	return batches{number(routing, len(routing)-1), transaction([]message{table})}
}

// removalOf takes one pod's route away.
func (s state) removalOf(pod netip.Addr) batch {
	for _, m := range s.routes {
		b := m.body()
		if b[7] == unix.RTN_UNICAST && bytes.Equal(value(b[unix.SizeofRtMsg:], unix.RTA_DST), pod.AsSlice()) {
			return number([]message{as(m, unix.RTM_DELROUTE, 0)}, 0)
		}
	}
	return batch{}
}

// as is the message with another kind, if that is not 0, other flags and more
// attributes.
func as(m message, kind, flags int, more ...[]byte) message {
	if kind == 0 {
		kind = int(binary.NativeEndian.Uint16(m[4:]))
	}
	return newMessage(kind, flags, append([][]byte{m.body()}, more...)...)
}

// transaction puts begin and end around a change of nftables.
func transaction(messages []message) batch {
	edge := func(kind int) message {
		return newMessage(kind, 0, []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES})
	}
	all := slices.Concat([]message{edge(unix.NFNL_MSG_BATCH_BEGIN)}, messages, []message{edge(unix.NFNL_MSG_BATCH_END)})
	return number(all, len(all)-2)
}

// difference says where two states differ; empty: nowhere. The order of routes,
// of elements and so on is the kernel's own affair, that of a chain's rules is not.
func (s state) difference(other state) string {
	for _, part := range []struct {
		name        string
		have, other []message
	}{
		{"routes", s.routes, other.routes}, {"neighbours", s.neighbors, other.neighbors}, {"rules", s.rules, other.rules},
		{"counters", s.objects, other.objects}, {"sets", s.sets, other.sets}, {"chains", s.chains, other.chains},
		{"elements", elements(s.inSets), elements(other.inSets)},
	} {
		if a, b := sorted(part.have), sorted(part.other); !slices.EqualFunc(a, b, same) {
			return fmt.Sprintf("%d %s instead of %d, or others", len(b), part.name, len(a))
		}
	}
	if a, b := byChain(s.chainRules), byChain(other.chainRules); !slices.EqualFunc(a, b, same) {
		return fmt.Sprintf("%d rules of chains instead of %d, or others", len(b), len(a))
	}
	return ""
}

func same(a, b message) bool { return bytes.Equal(a, b) }

func sorted(all []message) []message {
	return slices.SortedFunc(slices.Values(all), func(a, b message) int { return bytes.Compare(a, b) })
}

// byChain sorts rules by their chain and leaves them in order within it.
func byChain(rules []message) []message {
	chain := func(m message) []byte { return value(m.body()[sizeofNfgenmsg:], unix.NFTA_RULE_CHAIN) }
	rules = slices.Clone(rules)
	slices.SortStableFunc(rules, func(a, b message) int { return bytes.Compare(chain(a), chain(b)) })
	return rules
}

// elements takes apart the kernel's messages, each of which lists many.
func elements(lists []message) []message {
	var all []message
	for _, m := range lists {
		set := value(m.body()[sizeofNfgenmsg:], unix.NFTA_SET_ELEM_LIST_SET)
		for b := value(m.body()[sizeofNfgenmsg:], unix.NFTA_SET_ELEM_LIST_ELEMENTS); len(b) >= unix.SizeofNlAttr; {
			length := int(binary.NativeEndian.Uint16(b))
			if length < unix.SizeofNlAttr || length > len(b) {
				break
			}
			all = append(all, slices.Concat(set, b[:length]))
			b = b[min(len(b), (length+align4-1)&^(align4-1)):]
		}
	}
	return all
}
