package fabric

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEveryRuleIsShown: each rule of the design has a source, a scenario that
// shows it to a reader and a test of this package. A rule that names a drop
// reason has a scenario in which that reason is seen.
func TestEveryRuleIsShown(t *testing.T) {
	rules := rulesOf(t)
	tests := declaredTests(t)
	reason := regexp.MustCompile(`\b[A-Z]+(_[A-Z]+)*\b`)
	reasons := map[string]bool{}
	for _, r := range Reasons() {
		reasons[r.String()] = true
		if !strings.Contains(rules, r.String()) {
			t.Errorf("no rule names reason %s", r)
		}
	}
	for _, row := range strings.Split(rules, "\n") {
		cells := strings.Split(strings.Trim(row, "| "), " | ")
		if len(cells) != 4 || cells[1] == "" {
			t.Errorf("rule without source, scenario or test: %s", row)
			continue
		}
		if !tests[cells[3]] {
			t.Errorf("%s is no test of this package: %s", cells[3], row)
		}
		story, err := os.ReadFile(filepath.Join("..", "scenarios", cells[2]+".txtar"))
		if err != nil {
			t.Errorf("rule without a scenario: %v: %s", err, row)
			continue
		}
		for _, word := range reason.FindAllString(cells[0], -1) {
			if reasons[word] && !strings.Contains(string(story), word) {
				t.Errorf("scenario %s never sees %s: %s", cells[2], word, row)
			}
		}
	}
}

// rulesOf gives the rows of the design's table of rules.
func rulesOf(t *testing.T) string {
	t.Helper()
	doc, err := os.ReadFile("../../docs/design/fabric.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rules, found := strings.Cut(string(doc), "\n| rule | source | scenario | test |\n|---|---|---|---|\n")
	if !found {
		t.Fatal("docs/design/fabric.md has no table of rules")
	}
	rules, _, _ = strings.Cut(rules, "\n\n")
	return rules
}

func declaredTests(t *testing.T) map[string]bool {
	t.Helper()
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
	return tests
}
