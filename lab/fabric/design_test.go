package fabric

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every rule of the design names the test that shows it.
func TestDesignNamesRealTests(t *testing.T) {
	doc, err := os.ReadFile("../../docs/design/fabric.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rules, found := strings.Cut(string(doc), "\n| rule | source | shown by |\n|---|---|---|\n")
	if !found {
		t.Fatal("docs/design/fabric.md has no table of rules")
	}
	rules, _, _ = strings.Cut(rules, "\n\n")

	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range declared.FindAllSubmatch(b, -1) {
			tests[string(m[1])] = true
		}
	}
	for _, row := range strings.Split(rules, "\n") {
		cells := strings.Split(strings.Trim(row, "| "), " | ")
		if len(cells) != 3 || cells[1] == "" || !tests[cells[2]] {
			t.Errorf("rule without source or test: %s", row)
		}
	}
	for _, r := range Reasons() {
		if !strings.Contains(rules, r.String()) {
			t.Errorf("no rule names reason %s", r)
		}
	}
}
