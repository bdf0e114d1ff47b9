package house

import (
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// docs/seeds.md answers, for every object that the three texts Fairway grew
// from name, what it is here. Its form is held here; its truth by review.
const seedsPath = "docs/seeds.md"

var (
	seedNames    = []string{"002", "003", "004"}
	seedStatuses = []string{"here", "not here", "later"}
	seedColumns  = []string{"seed", "object", "kind", "status", "what it is here, why not, or with which capability"}
	capability   = regexp.MustCompile(`^- \*\*([^*]+)\*\*`)
	startsBold   = regexp.MustCompile(`^\*\*([^*]+)\*\*`)
)

// cells splits a table row at its bars; a bar inside a cell is written \|.
func cells(line string) []string {
	line = strings.Trim(strings.TrimSpace(line), "|")
	parts := strings.Split(strings.ReplaceAll(line, `\|`, "\x00"), "|")
	for i, p := range parts {
		parts[i] = strings.TrimSpace(strings.ReplaceAll(p, "\x00", "|"))
	}
	return parts
}

func checkSeeds(text []byte) []string {
	var out []string
	var rows int
	lines := prose(text)
	capabilities := map[string]bool{}
	for _, l := range lines {
		if m := capability.FindStringSubmatch(l.text); m != nil {
			capabilities[m[1]] = true
		}
	}
	perSeed := map[string]int{}
	seen := map[string]int{}
	for _, l := range lines {
		if !strings.HasPrefix(l.text, "|") {
			continue
		}
		row := cells(l.text)
		if slices.Equal(row, seedColumns) || strings.Trim(row[0], "-: ") == "" && row[0] != "" {
			continue
		}
		rows++
		if why := seedRow(row, capabilities); why != "" {
			out = append(out, fmt.Sprintf("%s:%d: %s", seedsPath, l.n, why))
			continue
		}
		perSeed[row[0]]++
		key := row[0] + " " + row[1] + " " + row[2]
		if first := seen[key]; first != 0 {
			out = append(out, fmt.Sprintf("%s:%d: %s stands in line %d already", seedsPath, l.n, row[1], first))
		}
		seen[key] = l.n
	}
	for _, seed := range seedNames {
		if perSeed[seed] == 0 {
			out = append(out, fmt.Sprintf("%s: no row of seed %s in %d rows", seedsPath, seed, rows))
		}
	}
	return out
}

// seedRow returns what is wrong with a row, or "".
func seedRow(row []string, capabilities map[string]bool) string {
	if len(row) != len(seedColumns) {
		return fmt.Sprintf("%d cells, want %d: %s", len(row), len(seedColumns), strings.Join(seedColumns, " | "))
	}
	for i, cell := range row {
		if cell == "" {
			return fmt.Sprintf("the cell %q is empty", seedColumns[i])
		}
	}
	if !slices.Contains(seedNames, row[0]) {
		return fmt.Sprintf("no seed %q: %s", row[0], strings.Join(seedNames, ", "))
	}
	if !slices.Contains(seedStatuses, row[3]) {
		return fmt.Sprintf("status %q of %s: %s", row[3], row[1], strings.Join(seedStatuses, ", "))
	}
	if row[3] != "later" {
		return ""
	}
	if m := startsBold.FindStringSubmatch(row[4]); m == nil || !capabilities[m[1]] {
		return fmt.Sprintf("%s comes later, and the last cell does not begin with a capability of the list, in bold", row[1])
	}
	return ""
}

func TestSeeds(t *testing.T) {
	text, err := fs.ReadFile(root(t), seedsPath)
	if err != nil {
		t.Fatal(err)
	}
	report(t, checkSeeds(text))
}

func TestSeedsRefuses(t *testing.T) {
	const head = "- **address pool**: grows.\n\n| seed | object | kind | status | what it is here, why not, or with which capability |\n|---|---|---|---|---|\n"
	tests := []struct {
		name, rows string
		want       []string
	}{
		{"whole", "", nil},
		{"no status", "| 004 | `X` | option | | nothing |\n", []string{`:8: the cell "status" is empty`}},
		{"other status", "| 004 | `X` | option | soon | nothing |\n", []string{`status "soon" of`}},
		{"here without words", "| 004 | `X` | option | here | |\n", []string{"is empty"}},
		{"later without capability", "| 004 | `X` | option | later | some day |\n", []string{"comes later"}},
		{"later with unknown capability", "| 004 | `X` | option | later | **wings**: some day |\n", []string{"comes later"}},
		{"unknown seed", "| 005 | `X` | option | here | x |\n", []string{`no seed "005"`}},
		{"too few cells", "| 004 | `X` | here | x |\n", []string{"4 cells"}},
		{"bar in a cell", "| 004 | `a \\| b` | command | here | x |\n", nil},
		{"twice", "| 002 | a | rule | here | x |\n", []string{":8: a stands in line 5 already"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rows := "| 002 | a | rule | here | x |\n| 003 | a | rule | not here | reason |\n| 004 | a | rule | later | **address pool**: x |\n"
			wantFindings(t, checkSeeds([]byte(head+rows+tt.rows)), tt.want...)
		})
	}
	t.Run("seed missing", func(t *testing.T) {
		wantFindings(t, checkSeeds([]byte(head+"| 002 | a | rule | here | x |\n")), "no row of seed 003", "no row of seed 004")
	})
}
