package cniapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type member struct{ Key, Value string }

func collect(text string) ([]member, error) {
	var got []member
	err := members([]byte(text), func(key string, value []byte) error {
		got = append(got, member{key, string(value)})
		return nil
	})
	return got, err
}

func TestMembers(t *testing.T) {
	tests := []struct {
		name, text string
		want       []member
	}{
		{"empty", ` {} `, nil},
		{"kinds", `{"a":1,"b":"x","c":[1,{"a":2}],"d":{"a":{}},"e":null,"f":true,"g":-1.5e+3}`,
			[]member{{"a", "1"}, {"b", `"x"`}, {"c", `[1,{"a":2}]`}, {"d", `{"a":{}}`}, {"e", "null"}, {"f", "true"}, {"g", "-1.5e+3"}}},
		{"space", "{ \"a\" :\n[ ] ,\t\"b\"\r: 0 }\n", []member{{"a", "[ ]"}, {"b", "0"}}},
		{"escaped key", `{"cniVers\u0069on":"1.0.0"}`, []member{{"cniVersion", `"1.0.0"`}}},
		{"twice", `{"a":1,"a":2}`, []member{{"a", "1"}, {"a", "2"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := collect(tt.text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("members (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMembersRefuses(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"nothing", "", "unexpected end of JSON at offset 0"},
		{"space", " \n", "unexpected end of JSON at offset 2"},
		{"list", `[]`, "not a JSON object at offset 0"},
		{"word", `null`, "not a JSON object at offset 0"},
		{"cut", `{"a":`, "unexpected end of JSON at offset 5"},
		{"cut string", `{"a":"b`, "unexpected end of JSON at offset 7"},
		{"cut in an escape", `{"a":"\u12`, "unexpected end of JSON at offset 10"},
		{"trailing comma", `{"a":1,}`, "expected a member name in double quotes at offset 7"},
		{"no colon", `{"a" 1}`, "expected a colon after the member name at offset 5"},
		{"bare word", `{"a": nul}`, "expected a value at offset 9"},
		{"leading zero", `{"a":01}`, "expected a comma or a closing brace at offset 6"},
		{"plus", `{"a":+1}`, "expected a value at offset 5"},
		{"second text", `{} {}`, "unexpected text after the JSON object at offset 3"},
		{"newline in a string", "{\"a\":\"\n\"}", "control character in a string at offset 6"},
		{"bad escape", `{"a":"\x"}`, "unknown escape in a string at offset 7"},
		{"deep", `{"a":` + strings.Repeat("[", 1<<20), "nested too deep at offset 133"},
		{"byte order mark", "\ufeff{}", "not a JSON object at offset 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := collect(tt.text)
			if err == nil || err.Error() != tt.want {
				t.Errorf("error %v, want %s", err, tt.want)
			}
			if got != nil {
				t.Errorf("visited %v of a text that is not JSON", got)
			}
		})
	}
}

func TestMembersEndsWithVisit(t *testing.T) {
	stop := errors.New("stop")
	n := 0
	err := members([]byte(`{"a":1,"b":2}`), func(string, []byte) error { n++; return stop })
	if err != stop || n != 1 {
		t.Errorf("after an error of visit: %d visits, error %v", n, err)
	}
}

// FuzzMembers holds the reader to encoding/json, which is the judge of what is
// JSON, and of what a string says.
func FuzzMembers(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"a":"\ud83d\ude00\ud83d","b":[1,2,{"c":null}]}`, `{"a":1e5,"b":-0,"c":0.10}`, `{"a":"` + "\xff\xed\xa0\x80" + `"}`,
		`{"cniVersion":"1.1.0","name":"n","type":"fairway-cni","prevResult":{"ips":[]}}`, `{"a":tru}`, `{"a":"\u00"}`, "{\"a\":\"\x7f\"}", `{"\uDC00\ud800":"\/\b\f\n\r\t\"\\"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := collect(string(text))
		trimmed := bytes.TrimLeft(text, " \t\r\n")
		valid := json.Valid(text) && trimmed[0] == '{'
		var syntax *syntaxError
		if errors.As(err, &syntax) && syntax.msg == "nested too deep" {
			return
		}
		if valid != (err == nil) {
			t.Fatalf("%q: error %v, encoding/json says valid=%v", text, err, valid)
		}
		if err != nil {
			if syntax == nil || syntax.offset < 0 || syntax.offset > len(text) {
				t.Fatalf("%q: error %v has no offset in the text", text, err)
			}
			return
		}
		want := map[string]json.RawMessage{}
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatal(err)
		}
		seen := map[string]string{}
		for _, m := range got {
			seen[m.Key] = m.Value
		}
		if len(seen) != len(want) {
			t.Fatalf("%q: keys %v, want %v", text, seen, want)
		}
		for key, value := range want {
			if seen[key] != string(value) {
				t.Fatalf("%q: %q is %q, want %q", text, key, seen[key], value)
			}
			var s string
			isString := value[0] == '"' && json.Unmarshal(value, &s) == nil
			if mine, err := stringValue(value); (err == nil) != isString || mine != s {
				t.Fatalf("%q: string %q, error %v, want %q", value, mine, err, s)
			}
		}
	})
}

func FuzzAppendString(f *testing.F) {
	for _, seed := range []string{"", "eth0", `a"b\c`, "\x00\x1f\x7f", "\xff", "\u2028é😀"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var back string
		text := appendString(nil, s)
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatalf("%q written as %s: %v", s, text, err)
		}
		if want := string([]rune(s)); back != want {
			t.Fatalf("%q came back as %q, want %q", s, back, want)
		}
		if mine, err := stringValue(text); err != nil || mine != back {
			t.Fatalf("%s: read %q, %v, want %q", text, mine, err, back)
		}
	})
}
