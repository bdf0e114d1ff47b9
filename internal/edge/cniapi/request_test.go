package cniapi

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadConfig(t *testing.T) {
	tests := []struct {
		name, text string
		want       Config
		code       uint
		msg        string
	}{
		{name: "defaults", text: `{"cniVersion":"1.0.0","name":"n"}`,
			want: Config{CNIVersion: "1.0.0", Name: "n", Socket: DefaultSocket, Spool: DefaultSpool}},
		{name: "all", text: `{"cniVersion":"1.0.0","name":"n","socket":"/a","spool":"/b","pluginLogFile":"/c","pluginLogLevel":"warn","mtu":"whatever"}`,
			want: Config{CNIVersion: "1.0.0", Name: "n", Socket: "/a", Spool: "/b", LogFile: "/c", LogLevel: "warn"}},
		{name: "not JSON", text: `{"cniVersion":`, code: 6, msg: "unexpected end of JSON at offset 14",
			want: Config{Socket: DefaultSocket, Spool: DefaultSpool}},
		{name: "version of a wrong type", text: `{"cniVersion":1}`, code: 6, msg: "cniVersion: must be a string",
			want: Config{Socket: DefaultSocket, Spool: DefaultSpool}},
		{name: "the version survives a later error", text: `{"socket":null,"cniVersion":"0.4.0"}`, code: 7, msg: "socket: must be a string",
			want: Config{CNIVersion: "0.4.0", Spool: DefaultSpool}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ReadConfig([]byte(tt.text))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("config (-want +got):\n%s", diff)
			}
			wantError(t, err, tt.code, tt.msg)
		})
	}
}

func wantError(t *testing.T, err *Error, code uint, msg string) {
	t.Helper()
	switch {
	case err == nil && code == 0:
	case err == nil:
		t.Errorf("no error, want code %d with %q", code, msg)
	case err.Code != code || !strings.Contains(err.Msg+" "+err.Details, msg):
		t.Errorf("error %v, want code %d with %q", err, code, msg)
	}
}

func TestConfigValidate(t *testing.T) {
	good := Config{Name: "n", Socket: "/a", Spool: "/b"}
	tests := []struct {
		name   string
		change func(*Config)
		msg    string
	}{
		{"name missing", func(c *Config) { c.Name = "" }, `name "": is empty`},
		{"name with a slash", func(c *Config) { c.Name = "a/b" }, `name "a/b": must begin`},
		{"relative socket", func(c *Config) { c.Socket = "cni.sock" }, "absolute path of at most 107"},
		{"long socket", func(c *Config) { c.Socket = "/" + strings.Repeat("a", 107) }, "absolute path of at most 107"},
		{"relative spool", func(c *Config) { c.Spool = "" }, `spool "": must be an absolute path`},
	}
	wantError(t, good.Validate(), 0, "")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := good
			tt.change(&c)
			wantError(t, c.Validate(), 7, tt.msg)
		})
	}
}

func TestCheckVersion(t *testing.T) {
	tests := []struct {
		command, version string
		code             uint
		msg              string
	}{
		{"ADD", "0.3.1", 0, ""}, {"DEL", "0.4.0", 0, ""}, {"CHECK", "0.4.0", 0, ""}, {"STATUS", "1.1.0", 0, ""}, {"GC", "1.1.0", 0, ""},
		{"ADD", "", 1, "means 0.1.0"}, {"ADD", "0.3.0", 1, "supported versions: 0.3.1, 0.4.0, 1.0.0, 1.1.0"}, {"DEL", "1.2.0", 1, `"1.2.0"`},
		{"CHECK", "0.3.1", 1, "supported versions: 0.4.0, 1.0.0, 1.1.0"}, {"STATUS", "1.0.0", 1, "supported versions: 1.1.0"}, {"GC", "1.0.0", 1, "for GC"},
	}
	for _, tt := range tests {
		t.Run(tt.command+" "+tt.version, func(t *testing.T) { wantError(t, CheckVersion(tt.command, tt.version), tt.code, tt.msg) })
	}
}

func TestValidNames(t *testing.T) {
	for _, id := range []string{"a", "0", "a.b_c-d", strings.Repeat("a", 1024)} {
		if err := ValidContainerID(id); err != nil {
			t.Errorf("container ID %q: %v", id, err)
		}
	}
	for _, id := range []string{"", ".", "..", "-a", "_a", "a/b", "a b", "é", "a\x00", "../../etc/passwd", strings.Repeat("a", 1025)} {
		if ValidContainerID(id) == nil {
			t.Errorf("container ID %q is taken", id)
		}
	}
	for _, name := range []string{"eth0", "a", "-", "...", "123456789012345"} {
		if err := ValidIfName(name); err != nil {
			t.Errorf("interface name %q: %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", "a/b", "a:b", "a b", "a\tb", "a\nb", "\x7f", "é", "\xa0", "1234567890123456"} {
		if ValidIfName(name) == nil {
			t.Errorf("interface name %q is taken", name)
		}
	}
}

func TestFrame(t *testing.T) {
	config := "{\n  \"name\": \"n\", \"weird\": [1.50, \"\\u0041\"]}\n"
	req := Request{Command: "ADD", ContainerID: "c", IfName: "eth0", NetNS: "/a\"b\\", Args: "A=\n", Path: "/p", Config: []byte(config)}
	frame, err := req.Frame()
	if err != nil {
		t.Fatal(err)
	}
	n, err := Length(frame)
	if err != nil || n != len(frame)-HeaderLen {
		t.Fatalf("length %d, %v, want %d", n, err, len(frame)-HeaderLen)
	}
	var got struct {
		Version                             int
		Command, ContainerID, IfName, NetNS string
		Args, Path                          string
		Config                              json.RawMessage
	}
	if err := json.Unmarshal(frame[HeaderLen:], &got); err != nil {
		t.Fatal(err)
	}
	if string(got.Config) != strings.TrimSpace(config) {
		t.Errorf("configuration %q, want it verbatim: %q", got.Config, config)
	}
	back := Request{Command: got.Command, ContainerID: got.ContainerID, IfName: got.IfName, NetNS: got.NetNS, Args: got.Args, Path: got.Path, Config: req.Config}
	if diff := cmp.Diff(req, back); diff != "" || got.Version != ProtocolVersion {
		t.Errorf("version %d, request (-want +got):\n%s", got.Version, diff)
	}

	req.Args = strings.Repeat("a", MaxFrame)
	if _, err := req.Frame(); !errors.Is(err, ErrTooLarge) {
		t.Errorf("large request: %v, want %v", err, ErrTooLarge)
	}
	if _, err := Length([]byte("HTTP/1.1")); !errors.Is(err, ErrGarbage) {
		t.Errorf("length of another protocol: %v, want %v", err, ErrGarbage)
	}
}

func TestParseReply(t *testing.T) {
	tests := []struct {
		name, text string
		want       Reply
		bad        bool
	}{
		{name: "result", text: `{"version":1,"exit":0,"result":{"a": 1}}`, want: Reply{Result: []byte(`{"a": 1}`)}},
		{name: "no result", text: `{"version":1,"exit":0}`},
		{name: "error", text: `{"version":1,"exit":1,"error":{"code":100,"msg":"m","details":"d"}}`, want: Reply{Exit: 1, Err: &Error{100, "m", "d"}}},
		{name: "other version", text: `{"version":2,"exit":0,"result":{}}`,
			want: Reply{Exit: 1, Err: &Error{CodeProtocol, "the agent speaks protocol version 2 and this plugin 1", "install plugin and agent of the same release"}}},
		{name: "other version, in words", text: `{"version":2,"exit":1,"error":{"code":103,"msg":"m"}}`, want: Reply{Exit: 1, Err: &Error{CodeProtocol, "m", ""}}},
		{name: "failure without an error", text: `{"version":1,"exit":1}`, bad: true},
		{name: "success with an error", text: `{"version":1,"exit":0,"error":{"code":1,"msg":""}}`, bad: true},
		{name: "not JSON", text: `HTTP/1.1 400 Bad Request`, bad: true},
		{name: "negative code", text: `{"version":1,"exit":1,"error":{"code":-1,"msg":""}}`, bad: true},
		{name: "version of a wrong type", text: `{"version":"1","exit":0}`, bad: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseReply([]byte(tt.text))
			if errors.Is(err, ErrGarbage) != tt.bad || err != nil && !tt.bad {
				t.Fatalf("error %v, want garbage: %v", err, tt.bad)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("reply (-want +got):\n%s", diff)
			}
		})
	}
}

func TestErrorJSON(t *testing.T) {
	e := &Error{Code: 7, Msg: "a \"quoted\" thing", Details: "line\nline"}
	var got struct {
		CNIVersion string `json:"cniVersion"`
		Error
	}
	if err := json.Unmarshal(e.AppendJSON(nil, "0.4.0"), &got); err != nil {
		t.Fatal(err)
	}
	if got.CNIVersion != "0.4.0" || got.Error != *e {
		t.Errorf("printed %+v, want %+v", got, *e)
	}
}

// FuzzPlugin is all that the plugin does with bytes from outside before it
// prints: it must neither panic nor print what is not JSON.
func FuzzPlugin(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.1.0","name":"n"}`), "c", "eth0")
	f.Add([]byte(`{"cniVersion":"9\u0000","name":7}`), "../c", "a/b")
	f.Add([]byte(`{"version":1,"exit":1,"error":{"code":11,"msg":"\ud800"}}`), "", "\xff")
	f.Fuzz(func(t *testing.T, text []byte, id, ifName string) {
		config, cniErr := ReadConfig(text)
		req := Request{Command: CommandAdd, ContainerID: id, IfName: ifName, NetNS: id, Args: ifName}
		errs := []*Error{cniErr, req.ValidateEnvironment(), CheckVersion(CommandAdd, config.CNIVersion), config.Validate()}
		if cniErr == nil {
			req.Config = text
		}
		if frame, err := req.Frame(); err == nil && !json.Valid(frame[HeaderLen:]) {
			t.Errorf("request is not JSON: %q", frame)
		}
		if reply, err := parseReply(text); err == nil {
			errs = append(errs, reply.Err)
		}
		for _, e := range errs {
			if e != nil && !json.Valid(e.AppendJSON(nil, config.CNIVersion)) {
				t.Errorf("error is not JSON: %q", e.AppendJSON(nil, config.CNIVersion))
			}
		}
		if !json.Valid(VersionResult(config.CNIVersion)) {
			t.Errorf("version result is not JSON: %q", VersionResult(config.CNIVersion))
		}
	})
}
