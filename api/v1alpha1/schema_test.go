package v1alpha1

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// property is as much of a schema as types have, too.
type property struct {
	Type                 string
	Format               string
	Required             []string
	Properties           map[string]property
	Items                *property
	AdditionalProperties *property `yaml:"additionalProperties"`
}

// definition is as much of a CRD as is compared.
type definition struct {
	Metadata struct{ Name string }
	Spec     struct {
		Group string
		Scope string
		Names struct {
			Kind, ListKind, Plural string
			ShortNames             []string `yaml:"shortNames"`
		}
		Versions []struct {
			Name         string
			Subresources map[string]any
			Columns      []struct {
				Name, Type string
				Path       string `yaml:"jsonPath"`
			} `yaml:"additionalPrinterColumns"`
			Schema struct {
				Root property `yaml:"openAPIV3Schema"`
			}
		}
	}
}

func readDefinition(t *testing.T, plural string) definition {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", "crds", GroupName+"_"+plural+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var d definition
	if err := yaml.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// filter is what picks an item of a list in a path.
var filter = regexp.MustCompile(`\[.*?\]`)

var kinds = []struct {
	kind, plural string
	object       runtime.Object
}{
	{KindENINode, PluralENINodes, &ENINode{}},
	{KindNodeConfig, PluralNodeConfigs, &NodeConfig{}},
}

// TestSchemas: each field of a type is in the schema with its type, and no other.
func TestSchemas(t *testing.T) {
	for _, k := range kinds {
		d := readDefinition(t, k.plural)
		if d.Spec.Group != GroupName || d.Spec.Scope != "Cluster" || d.Spec.Names.Kind != k.kind || d.Spec.Names.Plural != k.plural ||
			d.Metadata.Name != k.plural+"."+GroupName || len(d.Spec.Versions) != 1 || d.Spec.Versions[0].Name != GroupVersion.Version {
			t.Errorf("%s is %+v", k.kind, d.Spec)
		}
		v := d.Spec.Versions[0]
		if _, ok := v.Subresources["status"]; !ok {
			t.Errorf("%s has no subresource status", k.kind)
		}
		root := v.Schema.Root
		for _, name := range []string{"apiVersion", "kind", "metadata"} {
			delete(root.Properties, name) // the API server's own
		}
		for _, finding := range compare(k.kind, reflect.TypeOf(k.object).Elem(), root) {
			t.Error(finding)
		}
		for _, c := range v.Columns {
			if !reaches(reflect.TypeOf(k.object).Elem(), strings.Split(strings.TrimPrefix(filter.ReplaceAllString(c.Path, "[]"), "."), ".")) {
				t.Errorf("%s: column %s shows %s, which is no field", k.kind, c.Name, c.Path)
			}
		}
	}
}

// compare lists where a Go type and a schema differ.
func compare(at string, of reflect.Type, s property) (findings []string) {
	if of == reflect.TypeFor[metav1.Time]() {
		if s.Type != "string" || s.Format != "date-time" {
			return []string{at + ": must be a string of format date-time"}
		}
		return nil
	}
	want := map[reflect.Kind]string{reflect.Struct: "object", reflect.Map: "object", reflect.Slice: "array",
		reflect.String: "string", reflect.Bool: "boolean", reflect.Int32: "integer", reflect.Int64: "integer"}[of.Kind()]
	if want == "" || s.Type != want {
		return []string{fmt.Sprintf("%s: %s is %q in the schema", at, of, s.Type)}
	}
	switch of.Kind() {
	case reflect.Int32, reflect.Int64:
		if s.Format != of.Kind().String() {
			findings = append(findings, fmt.Sprintf("%s: %s has format %q", at, of, s.Format))
		}
	case reflect.Slice:
		return compare(at+"[]", of.Elem(), *s.Items)
	case reflect.Map:
		return compare(at+"{}", of.Elem(), *s.AdditionalProperties)
	case reflect.Struct:
		known := map[string]bool{}
		for f := range fieldsOf(of) {
			known[f] = true
		}
		for name, field := range fieldsOf(of) {
			p, ok := s.Properties[name]
			if !ok {
				findings = append(findings, at+"."+name+" is not in the schema")
				continue
			}
			if slices.Contains(s.Required, name) == field.optional {
				findings = append(findings, fmt.Sprintf("%s.%s: optional in Go %t, required by the schema %t", at, name, field.optional, !field.optional))
			}
			findings = append(findings, compare(at+"."+name, field.of, p)...)
		}
		for name := range s.Properties {
			if !known[name] {
				findings = append(findings, at+"."+name+" is in the schema only")
			}
		}
	}
	return findings
}

type field struct {
	of       reflect.Type
	optional bool
}

// fieldsOf are the JSON fields of a struct, without the meta ones.
func fieldsOf(of reflect.Type) map[string]field {
	fields := map[string]field{}
	for i := range of.NumField() {
		f := of.Field(i)
		name, rest, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "metadata" {
			continue
		}
		at := f.Type
		if at.Kind() == reflect.Pointer {
			at = at.Elem()
		}
		fields[name] = field{at, strings.Contains(rest, "omitempty")}
	}
	return fields
}

// reaches follows a path of a printer column.
func reaches(of reflect.Type, path []string) bool {
	if len(path) == 0 || path[0] == "metadata" {
		return true
	}
	name, _, filtered := strings.Cut(path[0], "[")
	f, ok := fieldsOf(of)[name]
	if !ok {
		return false
	}
	if filtered {
		f.of = f.of.Elem()
	}
	return reaches(f.of, path[1:])
}

func TestComparisonFinds(t *testing.T) {
	type inner struct {
		A string `json:"a"`
		B int32  `json:"b,omitempty"`
	}
	good := property{Type: "object", Required: []string{"a"}, Properties: map[string]property{"a": {Type: "string"}, "b": {Type: "integer", Format: "int32"}}}
	if found := compare("x", reflect.TypeFor[inner](), good); len(found) > 0 {
		t.Errorf("same: %q", found)
	}
	for what, bad := range map[string]property{
		"x.b: int32 has format":        {Type: "object", Required: []string{"a"}, Properties: map[string]property{"a": {Type: "string"}, "b": {Type: "integer"}}},
		"x.b is not in the schema":     {Type: "object", Required: []string{"a"}, Properties: map[string]property{"a": {Type: "string"}}},
		"x.a: optional in Go false":    {Type: "object", Properties: good.Properties},
		"x.a: string is \"boolean\"":   {Type: "object", Required: []string{"a"}, Properties: map[string]property{"a": {Type: "boolean"}, "b": good.Properties["b"]}},
		"x.c is in the schema only":    {Type: "object", Required: []string{"a"}, Properties: map[string]property{"a": {Type: "string"}, "b": good.Properties["b"], "c": {}}},
		"x: v1alpha1.inner is \"array": {Type: "array"},
	} {
		if found := strings.Join(compare("x", reflect.TypeFor[inner](), bad), "\n"); !strings.Contains(found, what) {
			t.Errorf("want %q, got %q", what, found)
		}
	}
}

// TestCopies: a copy equals what it was made of, and shares nothing with it. Every
// field is filled, so that one that is added is copied, too.
func TestCopies(t *testing.T) {
	for _, object := range []runtime.Object{&ENINode{}, &ENINodeList{}, &NodeConfig{}, &NodeConfigList{}} {
		fill(reflect.ValueOf(object).Elem(), 0)
		before, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		c := object.DeepCopyObject()
		if !reflect.DeepEqual(object, c) {
			t.Errorf("the copy of %T differs", object)
		}
		for _, at := range sharedBy("", reflect.ValueOf(object), reflect.ValueOf(c)) {
			t.Errorf("%T: %s is shared with its copy", object, at)
		}
		again := reflect.New(reflect.TypeOf(object).Elem()).Interface()
		if err := json.Unmarshal(before, again); err != nil {
			t.Fatal(err)
		}
		if text, err := json.Marshal(again); err != nil || string(text) != string(before) {
			t.Errorf("%T does not come back as it was written: %v\n%s\n%s", object, err, before, text)
		}
	}
	if (*ENINode)(nil).DeepCopy() != nil || (*NodeConfig)(nil).DeepCopy() != nil {
		t.Error("a copy of nothing is something")
	}
}

// fill sets every field of ours to something.
func fill(v reflect.Value, depth int) {
	if depth > 12 || v.Type() == reflect.TypeFor[metav1.Time]() || v.Type() == reflect.TypeFor[metav1.ObjectMeta]() || v.Type() == reflect.TypeFor[metav1.ListMeta]() {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth+1)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), depth+1)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i), depth+1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("key"), reflect.ValueOf("value"))
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32, reflect.Int64:
		v.SetInt(7)
	}
}

// sharedBy lists the pointers, slices and maps that two values have in common.
func sharedBy(at string, a, b reflect.Value) (found []string) {
	switch a.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		if a.IsNil() {
			return nil
		}
		if a.Pointer() == b.Pointer() {
			return []string{at}
		}
	}
	switch a.Kind() {
	case reflect.Pointer:
		return sharedBy(at, a.Elem(), b.Elem())
	case reflect.Struct:
		for i := range a.NumField() {
			if a.Type() == reflect.TypeFor[metav1.Time]() {
				continue
			}
			found = append(found, sharedBy(at+"."+a.Type().Field(i).Name, a.Field(i), b.Field(i))...)
		}
	case reflect.Slice:
		for i := range a.Len() {
			found = append(found, sharedBy(fmt.Sprintf("%s[%d]", at, i), a.Index(i), b.Index(i))...)
		}
	}
	return found
}

func TestScheme(t *testing.T) {
	s := runtime.NewScheme()
	if err := AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	for _, k := range kinds {
		if known, _, err := s.ObjectKinds(k.object); err != nil || known[0] != GroupVersion.WithKind(k.kind) {
			t.Errorf("%T is %v: %v", k.object, known, err)
		}
	}
}
