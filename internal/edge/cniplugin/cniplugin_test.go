package cniplugin

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestVersions(t *testing.T) {
	cases := []struct {
		name, script string
		want         []string
		words        string // of the error
	}{
		{"portmap of today", `echo '{"cniVersion":"1.1.0","supportedVersions":["0.4.0","1.0.0","1.1.0"]}'`, []string{"0.4.0", "1.0.0", "1.1.0"}, ""},
		{"asked with the variable alone", `test "$CNI_COMMAND" = VERSION && test -z "$SECRET" && echo '{"supportedVersions":["1.0.0"]}'`, []string{"1.0.0"}, ""},
		{"no list", `echo '{}'`, nil, "it names no version"},
		{"no JSON", `echo hello`, nil, "read its answer"},
		{"it fails", `exit 3`, nil, "exit status 3"},
		{"it never ends to speak", `while echo '                                                               '; do :; done`, nil, "ask plugin"},
	}
	t.Setenv("SECRET", "the agent's own")
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			program := filepath.Join(t.TempDir(), "plugin")
			if err := os.WriteFile(program, []byte("#!/bin/sh\n"+tc.script+"\n"), 0o700); err != nil {
				t.Fatal(err)
			}
			// Only now: all are written before one is started. A process that is just being
			// started has every file open that is, and nobody can run what is open to be
			// written (ETXTBSY).
			t.Parallel()
			got, err := Versions(t.Context(), program)
			if !slices.Equal(got, tc.want) || (err == nil) != (tc.words == "") {
				t.Fatalf("versions %q, error %v", got, err)
			}
			if err != nil && !strings.Contains(err.Error(), tc.words) {
				t.Errorf("error %q does not say %q", err, tc.words)
			}
		})
	}
}

func TestVersionsOfNothing(t *testing.T) {
	if _, err := Versions(t.Context(), filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Fatal("a plugin that is not there has versions")
	}
}
