package bundle

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/fairway-cni/fairway/internal/core/path"
)

// Redact is a copy of a world without the names of accounts, VPCs, clusters,
// nodes, pods and Services, without comments, texts and names of rules that somebody
// has given, without what reasons quote, and with other public addresses. The same name or address is the same everywhere, so that the answer
// is. report says, a line each, what was replaced and what was kept.
//
// Public addresses are mapped by key such that two with a common prefix have one
// of the same length afterwards: a route or rule that contains an address still
// does. Private and special ranges are left. A range of addresses in a set
// ("a-b") keeps its ends and may lose what is between.
func Redact(w *path.World, key []byte) (_ *path.World, report []string, err error) {
	r := &redactor{key: key, given: map[string]string{}, counts: map[string]int{}, addrs: map[netip.Addr]netip.Addr{}}
	c, err := clone(w)
	if err != nil {
		return nil, nil, fmt.Errorf("redact: %w", err)
	}
	c.Name = "redacted"
	r.names().apply(c)
	b, err := json.Marshal(c)
	if err != nil {
		return nil, nil, fmt.Errorf("redact: %w", err)
	}
	var tree any
	if err := unmarshalNumbers(b, &tree); err != nil {
		return nil, nil, fmt.Errorf("redact: %w", err)
	}
	if b, err = json.Marshal(r.texts(tree)); err != nil {
		return nil, nil, fmt.Errorf("redact: %w", err)
	}
	out, err := path.ParseWorld(b)
	if err != nil {
		return nil, nil, fmt.Errorf("redact: %w", err)
	}
	for _, kind := range []string{"account", "site", "node", "ns", "pod", "svc", "name", "rule-name", "chain", "set", "table", "comment", "text", "public address"} {
		if n := r.counts[kind]; n > 0 {
			report = append(report, fmt.Sprintf("replaced: %d %s", n, words[kind]))
		}
	}
	if n := r.counts["range"]; n > 0 {
		report = append(report, fmt.Sprintf("changed: %d ranges of public addresses have the same ends, and others between them: the answer for those may be another", n))
	}
	return out, append(report, "kept: private addresses; regions and zones; IDs of AWS resources; names of devices, BPF programs and ports; when it was taken"), nil
}

var words = map[string]string{"account": "account IDs", "site": "names of VPCs and clusters", "node": "names of nodes",
	"ns": "namespaces", "pod": "names of pods", "svc": "names of Services", "name": "names in DNS", "rule-name": "names in rules",
	"chain": "names of chains", "set": "names of sets", "table": "names of tables",
	"comment": "comments of rules", "text": "texts in rules", "public address": "public addresses"}

func unmarshalNumbers(b []byte, into any) error {
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.UseNumber()
	return d.Decode(into)
}

type redactor struct {
	key    []byte
	given  map[string]string // kind and name: the new one
	counts map[string]int
	addrs  map[netip.Addr]netip.Addr
}

// give is the new name of a thing; empty stays empty.
func (r *redactor) give(kind, name string) string { return r.giveAs(kind, kind, name) }

// giveAs makes names that begin in another way than by their kind.
func (r *redactor) giveAs(kind, begin, name string) string {
	if name == "" {
		return ""
	}
	new, ok := r.given[kind+" "+name]
	if !ok {
		r.counts[kind]++
		new = fmt.Sprintf("%s-%d", begin, r.counts[kind])
		if kind == "account" {
			new = fmt.Sprintf("%012d", r.counts[kind])
		}
		r.given[kind+" "+name] = new
	}
	return new
}

// Namespaces that every cluster has, and ours for pods without a name.
var commonNamespaces = []string{"default", "kube-system", "netns"}

func (r *redactor) namespace(name string) string {
	if slices.Contains(commonNamespaces, name) {
		return name
	}
	return r.give("ns", name)
}

// names is what the world's fields name.
func (r *redactor) names() renaming {
	kind := func(kind string) func(string) string {
		return func(name string) string { return r.give(kind, name) }
	}
	within := func(kind string) func(string, string) string {
		return func(namespace, name string) string { return r.give(kind, namespace+"/"+name) }
	}
	return renaming{kind("account"), kind("site"), kind("node"), r.namespace, kind("name"), within("pod"), within("svc")}
}

var (
	accounts = regexp.MustCompile(`:\d{12}:`) // in an ARN
	ipv4s    = regexp.MustCompile(`\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(/\d{1,2}\b|-\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\b)?`)
	ipv6s    = regexp.MustCompile(`([0-9A-Fa-f]{1,4})?(:[0-9A-Fa-f]{0,4}){2,}`)
)

// texts replaces what is inside of lines and values.
func (r *redactor) texts(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = r.texts(v[i])
		}
	case map[string]any:
		for k := range v {
			switch k {
			case "nftables":
				v[k] = r.rules(v[k], r.nftables)
			case "iptables":
				v[k] = r.rules(v[k], r.iptables)
			case "unknown":
				why, _ := v[k].(string)
				v[k] = r.why(why)
			case "public":
				v[k] = r.keys(v[k])
			case "sysctls", "counters": // keys and numbers
			case "peer", "taken":
			default:
				v[k] = r.texts(v[k])
			}
		}
	case string:
		return r.line(v)
	}
	return v
}

// rules are lines of nft or iptables-save.
func (r *redactor) rules(v any, replace func([]string)) any {
	list, ok := v.([]any)
	if !ok {
		return r.texts(v)
	}
	lines := make([]string, len(list))
	for i := range list {
		lines[i], _ = list[i].(string)
	}
	replace(lines)
	for i := range list {
		list[i] = lines[i]
	}
	return list
}

// Reasons why something is not known that name nobody, and ends of others.
var (
	plainWhys = regexp.MustCompile(`^(no right( to ec2:\w+)?|EC2 refused \w+: [\w.]+|EC2 was not read|the Kubernetes API was not asked|no kubeconfig here: .*)$`)
	plainEnds = regexp.MustCompile(`(nft is not installed|operation not permitted|permission denied|no such file or directory|executable file not found in \$PATH)$`)
)

// why is a reason without what it may quote: names, addresses of servers, what a
// program printed.
func (r *redactor) why(s string) string {
	if s == "" || plainWhys.MatchString(s) {
		return s
	}
	if end := plainEnds.FindString(s); end != "" {
		return end
	}
	return "redacted"
}

func (r *redactor) line(s string) string {
	s = accounts.ReplaceAllStringFunc(s, func(a string) string { return ":" + r.give("account", strings.Trim(a, ":")) + ":" })
	s = ipv6s.ReplaceAllStringFunc(s, r.ipv6)
	return ipv4s.ReplaceAllStringFunc(s, func(a string) string {
		if lo, hi, ok := strings.Cut(a, "-"); ok {
			return r.between(lo, hi)
		}
		if p, err := netip.ParsePrefix(a); err == nil {
			if p.Bits() == 0 || isSpecial(p.Addr()) {
				return a
			}
			q := netip.PrefixFrom(r.addr(p.Addr()), p.Bits())
			if p == p.Masked() {
				q = q.Masked()
			}
			return q.String()
		}
		addr, err := netip.ParseAddr(a)
		if err != nil || isSpecial(addr) {
			return a
		}
		return r.addr(addr).String()
	})
}

// between is a range of addresses. Its ends are those addresses' new ones, and what is
// between them is another's.
func (r *redactor) between(lo, hi string) string {
	a, err1 := netip.ParseAddr(lo)
	b, err2 := netip.ParseAddr(hi)
	if err1 != nil || err2 != nil || isSpecial(a) && isSpecial(b) {
		return lo + "-" + hi
	}
	if !isSpecial(a) {
		a = r.addr(a)
	}
	if !isSpecial(b) {
		b = r.addr(b)
	}
	if b.Less(a) {
		a, b = b, a
	}
	r.counts["range"]++
	return a.String() + "-" + b.String()
}

// ipv6 gives a global address of IPv6 one for documentation (RFC 3849). Nothing is
// decided by it, so that prefixes need not stay prefixes.
func (r *redactor) ipv6(s string) string {
	a, err := netip.ParseAddr(s)
	if err != nil || !globalIPv6.Contains(a) || documentIPv6.Contains(a) {
		return s
	}
	return documentIPv6.Addr().String() + strings.TrimPrefix(r.giveAs("public address", "ipv6", a.String()), "ipv6-")
}

var (
	globalIPv6   = netip.MustParsePrefix("2000::/3") // RFC 4291 2.4, as IANA assigns it
	documentIPv6 = netip.MustParsePrefix("2001:db8::/32")
)

// keys replaces what is inside of the keys and values of a map of addresses.
func (r *redactor) keys(v any) any {
	m, ok := v.(map[string]any)
	if !ok {
		return r.texts(v)
	}
	out := map[string]any{}
	for k := range m {
		out[r.line(k)] = r.texts(m[k])
	}
	return out
}

// special are the ranges that are nobody's on the internet (RFC 6890, and 224/3
// for multicast and what is reserved). They say nothing about who uses them.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("224.0.0.0/3"),
}

func isSpecial(a netip.Addr) bool {
	return slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(a) })
}

// addr maps a public address: each bit is kept or turned by a function of the
// bits before it, and kept where a special range begins with those.
func (r *redactor) addr(a netip.Addr) netip.Addr {
	if b, ok := r.addrs[a]; ok {
		return b
	}
	in := a.As4()
	bits := binary.BigEndian.Uint32(in[:])
	out := bits
	for i := range 32 {
		prefix := bits &^ (1<<(32-i) - 1)
		node := netip.PrefixFrom(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, prefix))), i)
		if slices.ContainsFunc(special, node.Overlaps) {
			continue
		}
		h := hmac.New(sha256.New, r.key)
		h.Write(binary.BigEndian.AppendUint32([]byte{byte(i)}, prefix))
		out ^= uint32(h.Sum(nil)[0]&1) << (31 - i)
	}
	b := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, out)))
	r.addrs[a] = b
	r.counts["public address"]++
	return b
}
