package ec2sim

import (
	"encoding/base64"
	"maps"
	"math"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Bounds of a request. EC2's own are not published.
const (
	maxBody    = 1 << 20 // bytes
	maxMembers = 1000    // of a list
	maxDepth   = 8       // names in a parameter such as A.1.B
)

// node is one name of the tree that the parameters make:
//
//	Filter.1.Value.2=x    root -> Filter -> 1 -> Value -> 2, with the value x
type node struct {
	value string
	given bool
	used  bool
	kids  map[string]*node
}

// parseForm makes the tree. A parameter given twice is refused.
func parseForm(values url.Values) (*node, error) {
	root := &node{kids: map[string]*node{}}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if len(values[name]) != 1 {
			return nil, fail("InvalidQueryParameter", "The parameter %s is given %d times", name, len(values[name]))
		}
		parts := strings.Split(name, ".")
		if len(parts) > maxDepth || slices.Contains(parts, "") {
			return nil, fail("UnknownParameter", "The parameter %s is not recognized", name)
		}
		at := root
		for _, part := range parts {
			if at.kids[part] == nil {
				at.kids[part] = &node{kids: map[string]*node{}}
			}
			at = at.kids[part]
		}
		at.value, at.given = values[name][0], true
	}
	return root, nil
}

// unknown gives the first parameter that nobody asked for.
func (n *node) unknown() (string, bool) {
	if n.given && !n.used {
		return "", true
	}
	for _, name := range slices.Sorted(maps.Keys(n.kids)) {
		if below, ok := n.kids[name].unknown(); ok {
			return strings.TrimSuffix(name+"."+below, "."), true
		}
	}
	return "", false
}

// skip has all below a node count as read: something else is wrong with it.
func (n *node) skip() {
	if n == nil {
		return
	}
	n.used = true
	for _, k := range n.kids {
		k.skip()
	}
}

// form reads the parameter at one node, and those below it. The first thing wrong is kept
// for the end, so that reading needs no error checks: a wrong or absent
// parameter reads as zero.
type form struct {
	node *node // nil where there is none
	path string
	err  *error // shared by all forms of a request
}

func newForm(root *node) form { return form{node: root, err: new(error)} }

func (f form) fail(err error) {
	if *f.err == nil {
		*f.err = err
	}
}

// in gives the parameters below a name.
func (f form) in(name string) form {
	below := form{path: name, err: f.err}
	if f.path != "" {
		below.path = f.path + "." + name
	}
	if f.node != nil {
		below.node = f.node.kids[name]
	}
	return below
}

// raw gives the value of the parameter.
func (f form) raw() (string, bool) {
	if f.node == nil || !f.node.given {
		return "", false
	}
	f.node.used = true
	return f.node.value, true
}

func (f form) text() string {
	v, _ := f.raw()
	return v
}

// required is for what no in-process caller can leave out, such as a number;
// the rest the state machine checks itself.
func (f form) required() {
	if _, ok := f.raw(); !ok {
		f.fail(missing(f.path))
	}
}

// count reads a number from least up.
func (f form) count(least int) int {
	v, ok := f.raw()
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(v, 10, 32)
	if err != nil {
		f.fail(invalidValue("Value (%s) for parameter %s is invalid. Parameter must be an integer.", v, f.path))
		return 0
	}
	if n < int64(least) || n > math.MaxInt32 {
		f.fail(invalidValue("Value (%s) for parameter %s is invalid. Parameter must be at least %d.", v, f.path, least))
		return 0
	}
	return int(n)
}

func (f form) flag() Optional[bool] {
	v, ok := f.raw()
	switch {
	case !ok:
		return Optional[bool]{}
	case strings.EqualFold(v, "true"):
		return Some(true)
	case strings.EqualFold(v, "false"):
		return Some(false)
	}
	f.fail(invalidValue("Value (%s) for parameter %s is invalid. Parameter must be true or false.", v, f.path))
	return Optional[bool]{}
}

// choice reads one of some words.
func (f form) choice(words ...string) string {
	v, ok := f.raw()
	if ok && !slices.Contains(words, v) {
		f.fail(invalidValue("Value (%s) for parameter %s is invalid. Parameter must be one of: %s.", v, f.path, strings.Join(words, ", ")))
		return ""
	}
	return v
}

func (f form) optional() Optional[string] {
	v, ok := f.raw()
	return Optional[string]{v, ok}
}

func (f form) addr() netip.Addr {
	v, ok := f.raw()
	if !ok {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(v)
	if err != nil || !a.Is4() {
		f.fail(invalidValue("Value (%s) for parameter %s is invalid. This is not a valid IPv4 address.", v, f.path))
		return netip.Addr{}
	}
	return a
}

func (f form) cidr() netip.Prefix {
	v, ok := f.raw()
	if !ok {
		return netip.Prefix{}
	}
	p, err := netip.ParsePrefix(v)
	if err != nil || !p.Addr().Is4() {
		f.fail(invalidValue("Value (%s) for parameter %s is invalid. This is not a valid CIDR block.", v, f.path))
		return netip.Prefix{}
	}
	return p
}

// base64 reads what travels encoded.
func (f form) base64() string {
	v, ok := f.raw()
	b, err := base64.StdEncoding.DecodeString(v)
	if ok && err != nil {
		f.fail(fail("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data."))
	}
	return string(b)
}

// members gives the members of a list, Name.1, Name.2 and so on, in the order
// of their numbers, which need not be without gaps.
func (f form) members() []form {
	if f.node == nil {
		return nil
	}
	if len(f.node.kids) > maxMembers {
		f.fail(invalidValue("The parameter %s has %d members. The maximum is %d.", f.path, len(f.node.kids), maxMembers))
		f.node.skip()
		return nil
	}
	var numbers []int
	for key := range f.node.kids {
		n, err := strconv.ParseUint(key, 10, 16)
		if err != nil || n == 0 || strconv.FormatUint(n, 10) != key {
			continue // stays unused, and is refused as unknown
		}
		numbers = append(numbers, int(n))
	}
	slices.Sort(numbers)
	var out []form
	for _, n := range numbers {
		out = append(out, f.in(strconv.Itoa(n)))
	}
	return out
}

// list reads a list of plain values.
func list[T any](f form, read func(form) T) []T {
	var out []T
	for _, m := range f.members() {
		if m.node.given { // else a structure where a value belongs: refused as unknown
			out = append(out, read(m))
		}
	}
	return out
}

func (f form) texts() []string { return list(f, form.text) }

func (f form) addrs() []netip.Addr { return list(f, form.addr) }

func (f form) cidrs() []netip.Prefix { return list(f, form.cidr) }

// tags reads Tag.N.Key and Tag.N.Value.
func (f form) tags() map[string]string {
	var tags map[string]string
	for _, m := range f.in("Tag").members() {
		key := m.in("Key").text()
		if _, twice := tags[key]; twice {
			f.fail(invalidValue("Duplicate tag key '%s' specified.", key))
		}
		if tags == nil {
			tags = map[string]string{}
		}
		tags[key] = m.in("Value").text()
	}
	return tags
}

// tagsFor reads the TagSpecification members, one for each kind of resource
// that the action makes.
func (f form) tagsFor(kinds ...kind) map[kind]map[string]string {
	return f.tagsIn("TagSpecification", kinds...)
}

// tagsIn is tagsFor under the name that the action has for it.
func (f form) tagsIn(name string, kinds ...kind) map[kind]map[string]string {
	out := map[kind]map[string]string{}
	for _, m := range f.in(name).members() {
		resource := m.in("ResourceType").text()
		at := slices.IndexFunc(kinds, func(k kind) bool { return k.resource == resource })
		switch {
		case resource == "":
			m.node.skip()
			f.fail(invalidValue("Tag specification resource type must have a value"))
		case at < 0:
			m.node.skip()
			f.fail(invalidValue("'%s' is not a valid taggable resource type for this operation.", resource))
		case out[kinds[at]] != nil:
			m.node.skip()
			f.fail(invalidValue("The same resource type may not be specified more than once in tag specifications"))
		default:
			tags := m.tags()
			if len(tags) == 0 {
				f.fail(invalidValue("Tag specification must have at least one tag"))
			}
			out[kinds[at]] = tags
		}
	}
	return out
}

// query reads what all Describe actions share; ids names the list of
// identifiers.
func (f form) query(ids string) Query {
	q := Query{Filters: f.filters(), MaxResults: f.in("MaxResults").count(1), NextToken: f.in("NextToken").text()}
	if ids != "" {
		q.IDs = f.in(ids).texts()
	}
	return q
}

func (f form) filters() []Filter {
	var out []Filter
	for _, m := range f.in("Filter").members() {
		name := m.in("Name").text()
		if name == "" {
			f.fail(invalidValue("The filter 'null' is invalid"))
		}
		out = append(out, Filter{name, m.in("Value").texts()})
	}
	return out
}

// addressing reads the addresses of an ENI to make.
func (f form) addressing() Addressing {
	a := Addressing{
		Primary:     f.in("PrivateIpAddress").addr(),
		Count:       f.in("SecondaryPrivateIpAddressCount").count(0),
		PrefixCount: f.in("Ipv4PrefixCount").count(0),
	}
	for _, m := range f.in("PrivateIpAddresses").members() {
		addr, primary := m.in("PrivateIpAddress").addr(), m.in("Primary").flag().Value
		switch {
		case !addr.IsValid():
			f.fail(missing(m.path + ".PrivateIpAddress"))
		case !primary:
			a.Secondary = append(a.Secondary, addr)
		case a.Primary.IsValid():
			f.fail(invalidCombination("Only one primary private IP address can be specified."))
		default:
			a.Primary = addr
		}
	}
	for _, m := range f.in("Ipv4Prefix").members() {
		p := m.in("Ipv4Prefix").cidr()
		if !p.IsValid() {
			f.fail(missing(m.path + ".Ipv4Prefix"))
		}
		a.Prefixes = append(a.Prefixes, p)
	}
	return a
}
