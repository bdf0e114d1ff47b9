package nodefile

import (
	"encoding/json"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Form is how a setting is written.
type Form string

const (
	Single  Form = "a single value" // key: value
	List    Form = "a list"         // key: [a, b], or one item in each line
	Mapping Form = "a mapping"      // key: {a: b}
)

// Setting is one key of a settings file.
type Setting struct {
	Key  string
	Form Form
	// Text is the value as a flag would have it: a list with commas between its
	// items, a mapping as a JSON object.
	Text string
	Line int
}

// ReadSettings reads the settings in a file, in its order.
func ReadSettings(path string) ([]Setting, error) {
	t, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	return ParseSettings(t.name, t.data)
}

// ParseSettings reads settings: one YAML document, a mapping. An empty one has
// none. name is the file's, for errors.
func ParseSettings(name string, data []byte) ([]Setting, error) {
	t := text{name, data}
	tops, err := t.documents()
	switch {
	case err != nil:
		return nil, err
	case len(tops) == 0:
		return nil, nil
	case len(tops) > 1:
		return nil, t.failf(tops[1], "a second YAML document begins here: settings are one document")
	}
	list, err := t.members(tops[0], "settings")
	if err != nil {
		return nil, err
	}
	settings := make([]Setting, 0, len(list))
	for _, m := range list {
		s := Setting{Key: m.key.Value, Line: m.key.Line}
		if err := t.setting(&s, m.value); err != nil {
			return nil, err
		}
		settings = append(settings, s)
	}
	return settings, nil
}

func (t text) setting(s *Setting, value *yaml.Node) error {
	switch value.Kind {
	case yaml.SequenceNode:
		items, err := t.list(value, s.Key)
		s.Form, s.Text = List, strings.Join(items, ",")
		return err
	case yaml.MappingNode:
		texts, err := t.texts(value, s.Key)
		if err != nil {
			return err
		}
		object, err := json.Marshal(texts)
		s.Form, s.Text = Mapping, string(object)
		return err
	}
	if isNull(value) {
		return t.failf(value, `%s has no value: write one ("" for an empty one), or remove the key`, s.Key)
	}
	s.Form, s.Text = Single, value.Value
	return nil
}
