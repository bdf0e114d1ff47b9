package nodefile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"
)

// What a file may hold at most. They bound the work that one can cause.
const (
	maxFile      = 1 << 20 // bytes; a thousand ENIConfigs take a quarter of it
	maxDepth     = 8       // nesting; the deepest key, a label of a Node, is at 3
	maxDocuments = 4096
)

// read reads a file of at most maxFile bytes. It never waits: a named pipe or a
// device is refused.
func read(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("read %s: not a regular file", path))
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	return data, nil
}

// text is a file's content and its name for errors.
type text struct {
	name string
	data []byte
}

func (t text) failf(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s", t.name, max(n.Line, 1), fmt.Sprintf(format, args...))
}

// documents gives the top nodes of the YAML documents, less the empty ones. They
// hold no alias, anchor or tag.
func (t text) documents() ([]*yaml.Node, error) {
	if len(t.data) > maxFile {
		return nil, fmt.Errorf("%s: more than %d bytes", t.name, maxFile)
	}
	dec := yaml.NewDecoder(bytes.NewReader(t.data))
	var tops []*yaml.Node
	for {
		var doc yaml.Node
		err := decode(dec, &doc)
		if errors.Is(err, io.EOF) {
			return tops, nil
		}
		if err != nil {
			return nil, t.yamlError(err)
		}
		if len(doc.Content) == 0 || isNull(doc.Content[0]) {
			continue
		}
		if len(tops) == maxDocuments {
			return nil, t.failf(doc.Content[0], "more than %d documents", maxDocuments)
		}
		if err := t.plain(doc.Content[0], 0); err != nil {
			return nil, err
		}
		tops = append(tops, doc.Content[0])
	}
}

// decode turns a panic of the YAML package into an error: it has been seen to
// panic on comments in odd places.
func decode(dec *yaml.Decoder, into *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the YAML parser gave up: %v", r)
		}
	}()
	return dec.Decode(into)
}

// yamlError puts the line in front of what the YAML package says, which often
// has "yaml: line 3: " there.
func (t text) yamlError(err error) error {
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(msg, "line "); ok {
		if line, what, ok := strings.Cut(rest, ": "); ok {
			return fmt.Errorf("%s:%s: not YAML: %s", t.name, line, what)
		}
	}
	return fmt.Errorf("%s: not YAML: %s", t.name, msg)
}

func (t text) plain(n *yaml.Node, depth int) error {
	switch {
	case depth > maxDepth:
		return t.failf(n, "nested deeper than %d levels", maxDepth)
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		return t.failf(n, "anchors and aliases are not accepted: write the value out")
	case n.Style&yaml.TaggedStyle != 0:
		return t.failf(n, "tag %q: tags are not accepted, write the plain value", n.Tag)
	}
	for _, c := range n.Content {
		if err := t.plain(c, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// member is one key of a mapping with its value.
type member struct{ key, value *yaml.Node }

// members gives the keys of a mapping in their order, each there once. what
// names the mapping in errors.
func (t text) members(n *yaml.Node, what string) ([]member, error) {
	if n.Kind != yaml.MappingNode {
		return nil, t.failf(n, "%s must be a mapping of keys to values", what)
	}
	var list []member
	lines := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode || isNull(k) {
			return nil, t.failf(k, "%s: a key must be a word", what)
		}
		if first, twice := lines[k.Value]; twice {
			return nil, t.failf(k, "key %q of %s is there twice, first in line %d", k.Value, what, first)
		}
		lines[k.Value] = k.Line
		list = append(list, member{k, v})
	}
	return list, nil
}

// fields gives the values of a mapping that may have only the keys of known.
func (t text) fields(n *yaml.Node, what string, known ...string) (map[string]*yaml.Node, error) {
	list, err := t.members(n, what)
	if err != nil {
		return nil, err
	}
	values := make(map[string]*yaml.Node, len(list))
	for _, m := range list {
		if !slices.Contains(known, m.key.Value) {
			return nil, t.failf(m.key, "unknown key %q of %s: known are %s", m.key.Value, what, strings.Join(known, ", "))
		}
		values[m.key.Value] = m.value
	}
	return values, nil
}

// scalar is the text of a value that must be a single one; "" of one that is
// not there.
func (t text) scalar(n *yaml.Node, what string) (string, error) {
	if n == nil {
		return "", nil
	}
	if n.Kind != yaml.ScalarNode || isNull(n) {
		return "", t.failf(n, "%s must be a single value", what)
	}
	return n.Value, nil
}

// list is the texts of a list of single values; none of one that is not there.
func (t text) list(n *yaml.Node, what string) ([]string, error) {
	if n == nil {
		return nil, nil
	}
	if n.Kind != yaml.SequenceNode {
		return nil, t.failf(n, "%s must be a list", what)
	}
	values := make([]string, 0, len(n.Content))
	for _, c := range n.Content {
		v, err := t.scalar(c, "an item of "+what)
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, nil
}

// texts is a mapping of keys to single values; none of one that is not there.
func (t text) texts(n *yaml.Node, what string) (map[string]string, error) {
	if n == nil {
		return nil, nil
	}
	list, err := t.members(n, what)
	if err != nil {
		return nil, err
	}
	values := make(map[string]string, len(list))
	for _, m := range list {
		if values[m.key.Value], err = t.scalar(m.value, fmt.Sprintf("%s: %q", what, m.key.Value)); err != nil {
			return nil, err
		}
	}
	return values, nil
}

func open(path string) (text, error) {
	data, err := read(path)
	return text{path, data}, err
}
