package world

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// What a world file may hold at most. They bound the work that a file can
// cause, also a hostile one.
const (
	maxFile     = 1 << 20 // bytes
	maxDepth    = 16      // nesting; the format itself needs 7
	maxProblems = 100     // told at once
)

// Defaults of keys that may be left out.
const (
	defaultRegion   = "eu-west-1"
	defaultZone     = "a"
	defaultHopLimit = 2 // an answer reaches a pod behind one routing hop
)

// Error is one complaint about a world.
type Error struct {
	Pos Pos
	Msg string // what is wrong, and what would be right
}

func (e *Error) Error() string { return e.Pos.String() + ": " + e.Msg }

// Parse reads a world file of at most 1 MiB. file is its name, for errors only.
//
// The error holds every problem that was found, one [*Error] per line of its
// text, in the order of the file; [errors.As] finds the first.
func Parse(file string, data []byte) (*World, error) {
	p := &parser{file: file}
	root := p.document(data)
	if root == nil {
		return nil, joined(p.problems)
	}
	w := p.world(root)
	if w.keys == nil {
		return nil, joined(p.problems)
	}
	p.resolve(w)
	if err := joined(append(p.problems, w.problems()...)); err != nil {
		return nil, err
	}
	return w, nil
}

// joined makes one error of the problems, nil of none.
func joined(problems []*Error) error {
	slices.SortStableFunc(problems, func(a, b *Error) int { return a.Pos.Line - b.Pos.Line })
	var errs []error
	for i, e := range problems {
		if i == maxProblems {
			errs = append(errs, errors.New("and more problems"))
			break
		}
		errs = append(errs, e)
	}
	return errors.Join(errs...)
}

// parser turns YAML nodes into a World and collects what is wrong with them.
type parser struct {
	file     string
	problems []*Error
}

func (p *parser) failf(line int, format string, args ...any) {
	if len(p.problems) > maxProblems {
		return
	}
	p.problems = append(p.problems, &Error{Pos{p.file, max(line, 1)}, fmt.Sprintf(format, args...)})
}

var yamlMessage = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?((?s).*)$`)

var unknownAnchor = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)

// yamlError tells what the YAML package says, which has no line for an alias.
func (p *parser) yamlError(err error, data []byte) {
	m := yamlMessage.FindStringSubmatch(err.Error())
	line, _ := strconv.Atoi(m[1])
	if alias := unknownAnchor.FindStringSubmatch(m[2]); alias != nil && line == 0 {
		before, _, _ := bytes.Cut(data, []byte("*"+alias[1]))
		line = 1 + bytes.Count(before, []byte("\n"))
	}
	p.failf(line, "not YAML: %s", m[2])
}

// document reads the only YAML document of data and gives its top node, or nil.
func (p *parser) document(data []byte) *yaml.Node {
	if len(data) > maxFile {
		p.failf(1, "the file has %d bytes: at most %d are read", len(data), maxFile)
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	switch err := decodeNode(dec, &doc); {
	case errors.Is(err, io.EOF) || err == nil && len(doc.Content) == 0:
		p.failf(1, "the file is empty: it needs at least name, vpcs and instances")
		return nil
	case err != nil:
		p.yamlError(err, data)
		return nil
	}
	var second yaml.Node
	if err := decodeNode(dec, &second); err == nil {
		p.failf(second.Line, "a second YAML document begins here: a world is one document")
	} else if !errors.Is(err, io.EOF) {
		p.yamlError(err, data)
	}
	p.plain(doc.Content[0], 0)
	if len(p.problems) > 0 {
		return nil
	}
	return doc.Content[0]
}

// decodeNode turns a panic of the YAML package into an error: it has been seen
// to panic on comments in odd places, and the bytes are not ours.
func decodeNode(dec *yaml.Decoder, into *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the YAML parser gave up: %v", r)
		}
	}()
	return dec.Decode(into)
}

// plain refuses what the format has no use for and what can make a small file
// expand into a large one.
func (p *parser) plain(n *yaml.Node, depth int) {
	switch {
	case len(p.problems) >= maxProblems:
		return
	case depth > maxDepth:
		p.failf(n.Line, "nested deeper than %d levels", maxDepth)
		return
	case n.Kind == yaml.AliasNode:
		p.failf(n.Line, "alias %s: anchors and aliases are not accepted, write the value out", quoted(n.Value))
		return
	case n.Anchor != "":
		p.failf(n.Line, "anchor %s: anchors and aliases are not accepted, write the value out", quoted(n.Anchor))
	case n.Style&yaml.TaggedStyle != 0:
		p.failf(n.Line, "tag %s: tags are not accepted, write the plain value", quoted(n.Tag))
	}
	for _, c := range n.Content {
		p.plain(c, depth+1)
	}
}

// field is one key of a mapping and what reads its value. read reports whether
// the value could be read; where not, it has said why.
type field struct {
	key  string
	read func(*yaml.Node) bool
}

// mapping reads the keys of n, which is a what ("subnet"), and gives their lines.
func (p *parser) mapping(n *yaml.Node, what string, fields []field) keyLines {
	if n.Kind != yaml.MappingNode {
		p.failf(n.Line, "%s: found %s, want a mapping with the keys %s", what, kind(n), names(fields))
		return nil
	}
	keys := keyLines{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		f := slices.IndexFunc(fields, func(f field) bool { return f.key == k.Value })
		switch {
		case k.Kind != yaml.ScalarNode:
			p.failf(k.Line, "%s: found %s where a key should be: known keys are %s", what, kind(k), names(fields))
		case f < 0:
			p.failf(k.Line, "unknown key %s in %s%s: known keys are %s",
				quoted(k.Value), what, suggest(k.Value, keysOf(fields)), names(fields))
		case keys[k.Value].line != 0:
			p.failf(k.Line, "key %s in %s is there twice, first in line %d", quoted(k.Value), what, keys[k.Value].line)
		default:
			ok := fields[f].read(v)
			keys[k.Value] = keyAt{line: k.Line, bad: !ok}
		}
	}
	return keys
}

// list hands each element of n to read. what names the list, each an element.
func (p *parser) list(n *yaml.Node, what string, limit int, read func(*yaml.Node)) bool {
	if n.Kind != yaml.SequenceNode {
		p.failf(n.Line, "%s: found %s, want a list", what, kind(n))
		return false
	}
	if len(n.Content) > limit {
		p.failf(n.Line, "%s: %d elements, at most %d are accepted", what, len(n.Content), limit)
		return false
	}
	for _, c := range n.Content {
		read(c)
	}
	return true
}

func (p *parser) text(what string, into *string) func(*yaml.Node) bool {
	return func(n *yaml.Node) bool {
		if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
			p.failf(n.Line, "%s: found %s, want text", what, kind(n))
			return false
		}
		*into = n.Value
		return true
	}
}

func (p *parser) texts(what string, limit int, into *[]string) func(*yaml.Node) bool {
	return func(n *yaml.Node) bool {
		all := true
		*into = []string{}
		ok := p.list(n, what, limit, func(c *yaml.Node) {
			var s string
			all = p.text(what, &s)(c) && all
			*into = append(*into, s)
		})
		return ok && all
	}
}

func (p *parser) number(what string, into *int) func(*yaml.Node) bool {
	return func(n *yaml.Node) bool {
		v, err := strconv.Atoi(n.Value)
		if n.Kind != yaml.ScalarNode || err != nil {
			p.failf(n.Line, "%s: found %s, want a whole number", what, kind(n))
			return false
		}
		*into = v
		return true
	}
}

func (p *parser) cidr(what string, into *netip.Prefix) func(*yaml.Node) bool {
	return func(n *yaml.Node) bool {
		var s string
		if !p.text(what, &s)(n) {
			return false
		}
		prefix, err := netip.ParsePrefix(s)
		if err != nil {
			p.failf(n.Line, "%s %s: want an IPv4 CIDR block such as 10.0.0.0/16", what, quoted(s))
			return false
		}
		*into = prefix
		return true
	}
}

func keysOf(fields []field) []string {
	var keys []string
	for _, f := range fields {
		keys = append(keys, f.key)
	}
	return keys
}

func names(fields []field) string { return strings.Join(keysOf(fields), ", ") }

// kind says what a node is, in the words of somebody who writes YAML.
func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		if n.Tag == "!!null" {
			return "nothing"
		}
		return quoted(n.Value)
	default:
		return "an alias"
	}
}

// quoted keeps a message readable whatever the file holds.
func quoted(s string) string {
	const most = 64
	if len(s) > most {
		return strconv.Quote(s[:most]) + "..."
	}
	return strconv.Quote(s)
}

// suggest gives ` (did you mean "x"?)` for the nearest of known, or nothing
// where none is near.
func suggest(s string, known []string) string {
	if len(s) > 40 || len(known) > 256 { // the work per name is bounded
		return ""
	}
	best, at := len(s)/3+2, ""
	for _, k := range known {
		if d := distance(strings.ToLower(s), strings.ToLower(k)); d < best {
			best, at = d, k
		}
	}
	if at == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", at)
}

// distance is the Levenshtein distance of a and b in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
