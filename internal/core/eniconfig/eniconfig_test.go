package eniconfig

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSelect(t *testing.T) {
	type m = map[string]string
	usual := Keys{DefaultKey, DefaultKey}
	zone := Keys{DefaultKey, ZoneLabel}
	names := []string{"blue", "default", "eu-west-1a", "red"}
	for _, tt := range []struct {
		name                string
		annotations, labels m
		keys                Keys
		names               []string
		want, where, refuse string
	}{
		{name: "nothing said", keys: usual, names: names, want: "default", where: "nothing on the node"},
		{name: "label", labels: m{DefaultKey: "red"}, keys: usual, names: names, want: "red", where: "label " + DefaultKey},
		{name: "annotation", annotations: m{DefaultKey: "blue"}, keys: usual, names: names, want: "blue", where: "annotation " + DefaultKey},
		{name: "annotation before label", annotations: m{DefaultKey: "blue"}, labels: m{DefaultKey: "red"}, keys: usual, names: names,
			want: "blue", where: "annotation " + DefaultKey},
		{name: "a controller's label before all", annotations: m{DefaultKey: "blue"}, labels: m{DefaultKey: "blue", externalKey: "red"}, keys: usual, names: names,
			want: "red", where: "label " + externalKey},
		{name: "other keys", annotations: m{"a": "red", DefaultKey: "blue"}, keys: Keys{"a", "l"}, names: names, want: "red", where: "annotation a"},
		{name: "other label", labels: m{"l": "red", DefaultKey: "blue"}, keys: Keys{"a", "l"}, names: names, want: "red", where: "label l"},
		{name: "by zone", labels: Node{}.InZone("eu-west-1a").Labels, keys: zone, names: names, want: "eu-west-1a", where: "label " + ZoneLabel},
		{name: "annotation before zone", annotations: m{DefaultKey: "red"}, labels: Node{}.InZone("eu-west-1a").Labels, keys: zone, names: names,
			want: "red", where: "annotation " + DefaultKey},
		{name: "by a zone that has none", labels: Node{}.InZone("eu-west-1b").Labels, keys: zone, names: names,
			where: "label " + ZoneLabel, refuse: `"eu-west-1b"`},
		{name: "none of that name, and no other is taken", annotations: m{DefaultKey: "green"}, labels: m{DefaultKey: "red"}, keys: usual, names: names,
			where: "annotation", refuse: `no such ENIConfig: "green" (annotation ` + DefaultKey + `); there is blue, default, eu-west-1a, red`},
		{name: "no default", keys: usual, where: "nothing", refuse: "there is none"},
		{name: "empty", labels: m{DefaultKey: ""}, keys: usual, names: names, where: "label", refuse: "is empty"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, where, err := Select(tt.annotations, tt.labels, tt.keys, tt.names)
			if got != tt.want || !strings.HasPrefix(where, tt.where) {
				t.Errorf("got %q by %q, want %q by %q", got, where, tt.want, tt.where)
			}
			switch {
			case tt.refuse == "" && err != nil:
				t.Error(err)
			case tt.refuse != "" && (err == nil || !strings.Contains(err.Error(), tt.refuse)):
				t.Errorf("error %v, want %q", err, tt.refuse)
			case err != nil && errors.Is(err, ErrAbsent) == strings.Contains(tt.refuse, "empty"):
				t.Errorf("error %v: ErrAbsent %v", err, errors.Is(err, ErrAbsent))
			}
		})
	}
}

func TestManyNamesAreShortened(t *testing.T) {
	var names []string
	for i := range 30 {
		names = append(names, fmt.Sprint("n", i))
	}
	_, _, err := Select(nil, nil, Keys{"a", "l"}, names)
	if err == nil || !strings.HasSuffix(err.Error(), "n9 and 20 more") {
		t.Errorf("%v", err)
	}
}

func TestInZoneKeepsWhatTheNodeSays(t *testing.T) {
	n := Node{Labels: map[string]string{ZoneLabel: "mine", "x": "y"}}
	got := n.InZone("a").Labels
	want := map[string]string{ZoneLabel: "mine", FormerZoneLabel: "a", "x": "y"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if len(n.Labels) != 2 {
		t.Error("the node's own labels were changed")
	}
	if got := n.InZone(""); len(got.Labels) != 2 {
		t.Errorf("an unknown zone: %v", got.Labels)
	}
}

func TestCheckZone(t *testing.T) {
	c := Config{Name: "red", SubnetID: "subnet-12345678"}
	if err := CheckZone(c, "a", "a"); err != nil {
		t.Error(err)
	}
	for _, zones := range [][2]string{{"a", "b"}, {"", "a"}, {"a", ""}, {"", ""}} {
		if err := CheckZone(c, zones[0], zones[1]); err == nil || !strings.Contains(err.Error(), "red") || !strings.Contains(err.Error(), c.SubnetID) {
			t.Errorf("subnet in %q, node in %q: %v", zones[0], zones[1], err)
		}
	}
}

func TestSet(t *testing.T) {
	sound := Config{Name: "red", SubnetID: "subnet-0123456789abcdef0", Groups: []string{"sg-12345678"}}
	s, err := NewSet(Node{}, []Config{sound, {Name: "default", SubnetID: "subnet-12345678"}})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"default", "red"}, s.Names()); d != "" {
		t.Error(d)
	}
	got, _, err := s.Select(Node{Labels: map[string]string{"l": "red"}}, Keys{"a", "l"})
	if d := cmp.Diff(sound, got); d != "" || err != nil {
		t.Error(d, err)
	}
	if got, _, err := s.Select(Node{Labels: map[string]string{"l": "green"}}, Keys{"a", "l"}); !errors.Is(err, ErrAbsent) || got.Name != "" {
		t.Errorf("%+v, %v", got, err)
	}

	many := sound
	many.Groups = nil
	for i := range maxGroups + 1 {
		many.Groups = append(many.Groups, fmt.Sprintf("sg-%08x", i))
	}
	for _, tt := range []struct {
		configs []Config
		want    string
	}{
		{[]Config{sound, sound}, "ENIConfig red is there twice"},
		{[]Config{{SubnetID: sound.SubnetID}}, `metadata.name ""`},
		{[]Config{{Name: "Red", SubnetID: sound.SubnetID}}, `metadata.name "Red"`},
		{[]Config{{Name: strings.Repeat("a", 254), SubnetID: sound.SubnetID}}, "at most 253"},
		{[]Config{{Name: "red"}}, `spec.subnet "" of ENIConfig red`},
		{[]Config{{Name: "red", SubnetID: "vpc-12345678"}}, `spec.subnet "vpc-12345678"`},
		{[]Config{{Name: "red", SubnetID: sound.SubnetID, Groups: []string{"web"}}}, `"web": must be a security group's ID`},
		{[]Config{{Name: "red", SubnetID: sound.SubnetID, Groups: []string{"sg-12345678", "sg-12345678"}}}, "named twice"},
		{[]Config{many}, "17 of them: must be at most 16"},
	} {
		if _, err := NewSet(Node{}, tt.configs); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.configs, err, tt.want)
		}
	}
}
