package house

import (
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"unicode"
)

var (
	inlineCode  = regexp.MustCompile("`[^`]*`")
	linkTargets = regexp.MustCompile(`\]\(\s*<?([^)\s>]+)>?(?:\s+"[^"]*")?\s*\)|^\[[^\]^]+\]:\s*<?([^\s>]+)|(?:src|href|srcset)="([^"]+)"`)
	heading     = regexp.MustCompile(`^(#{1,6})\s+(.*?)\s*#*$`)
	linkText    = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
)

// proseLine is a line of a Markdown file outside its fenced code blocks.
type proseLine struct {
	n    int
	text string
}

func prose(text []byte) []proseLine {
	var out []proseLine
	fence := ""
	for i, line := range strings.Split(string(text), "\n") {
		trimmed := strings.TrimSpace(line)
		switch {
		case fence != "":
			if strings.HasPrefix(trimmed, fence) {
				fence = ""
			}
		case strings.HasPrefix(trimmed, "```"), strings.HasPrefix(trimmed, "~~~"):
			fence = trimmed[:3]
		default:
			out = append(out, proseLine{i + 1, line})
		}
	}
	return out
}

// anchors are the fragments that GitHub gives to a file's headings.
func anchors(text []byte) map[string]bool {
	out := map[string]bool{}
	for _, l := range prose(text) {
		m := heading.FindStringSubmatch(l.text)
		if m == nil {
			continue
		}
		slug := strings.Map(func(r rune) rune {
			switch {
			case unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '_':
				return unicode.ToLower(r)
			case r == ' ':
				return '-'
			}
			return -1
		}, linkText.ReplaceAllString(m[2], "$1"))
		name := slug
		for i := 1; out[name]; i++ {
			name = slug + "-" + strconv.Itoa(i)
		}
		out[name] = true
	}
	return out
}

func markdown(p string) bool { return path.Ext(p) == ".md" }

// checkLinks wants every relative link of every Markdown file to lead to a file
// of the repository, and its fragment to a heading there.
func checkLinks(fsys fs.FS) ([]string, error) {
	paths, err := files(fsys, markdown)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, p := range paths {
		text, err := fs.ReadFile(fsys, p)
		if err != nil {
			return nil, err
		}
		for _, l := range prose(text) {
			for _, m := range linkTargets.FindAllStringSubmatch(inlineCode.ReplaceAllString(l.text, ""), -1) {
				if why := brokenLink(fsys, p, m[1]+m[2]+m[3]); why != "" {
					out = append(out, fmt.Sprintf("%s:%d: link %s: %s", p, l.n, m[1]+m[2]+m[3], why))
				}
			}
		}
	}
	return out, nil
}

// brokenLink returns why a link does not lead anywhere, or "". Links to other
// sites are not followed: a test must not need the network.
func brokenLink(fsys fs.FS, from, target string) string {
	if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
		return ""
	}
	file, fragment, _ := strings.Cut(target, "#")
	to := from
	if file != "" {
		to = path.Join(path.Dir(from), file)
	}
	if strings.HasPrefix(file, "/") || !fs.ValidPath(to) {
		return "leads out of the repository; write it relative to the file"
	}
	if _, err := fs.Stat(fsys, to); err != nil {
		return "no such file"
	}
	if fragment == "" || !markdown(to) {
		return ""
	}
	text, err := fs.ReadFile(fsys, to)
	if err != nil {
		return err.Error()
	}
	if !anchors(text)[fragment] {
		return "no such heading in " + to
	}
	return ""
}

// The paths of some person's machine. In Markdown, home directories too: an
// example that works for one reader only is not an example.
var (
	machinePaths  = regexp.MustCompile(`(?:^|[^A-Za-z0-9_.])/(?:work|farm|Users)/`)
	machineInDocs = regexp.MustCompile(`(?:^|[^A-Za-z0-9_.])/(?:home|root)/`)
)

func checkMachinePaths(fsys fs.FS) ([]string, error) {
	paths, err := files(fsys, func(string) bool { return true })
	if err != nil {
		return nil, err
	}
	var out []string
	for _, p := range paths {
		text, err := fs.ReadFile(fsys, p)
		if err != nil {
			return nil, err
		}
		if bytes.IndexByte(text[:min(len(text), 8000)], 0) >= 0 {
			continue // binary: a compiled object, a compressed table
		}
		for i, line := range strings.Split(string(text), "\n") {
			m := machinePaths.FindString(line)
			if m == "" && markdown(p) {
				m = machineInDocs.FindString(line)
			}
			if m != "" {
				out = append(out, fmt.Sprintf("%s:%d: path of one machine: %s", p, i+1, strings.TrimSpace(m)))
			}
		}
	}
	return out, nil
}

func headings(text []byte) []string {
	var out []string
	for _, l := range prose(text) {
		if m := heading.FindStringSubmatch(l.text); m != nil && len(m[1]) == 2 {
			out = append(out, m[2])
		}
	}
	return out
}

var decisionName = regexp.MustCompile(`^[0-9]{4}-[a-z0-9]+(-[a-z0-9]+)*\.md$`)

// checkDocForms: a design ends in what a reviewer rejects and what must change
// with it; a decision says what else was considered and what it costs.
func checkDocForms(fsys fs.FS) ([]string, error) {
	paths, err := files(fsys, markdown)
	if err != nil {
		return nil, err
	}
	var out []string
	numbers := map[string]string{}
	for _, p := range paths {
		dir, base := path.Split(p)
		if dir != "docs/design/" && dir != "docs/decisions/" || base == "README.md" {
			continue
		}
		text, err := fs.ReadFile(fsys, p)
		if err != nil {
			return nil, err
		}
		have := headings(text)
		if dir == "docs/design/" {
			n := len(have)
			if n < 2 || have[n-2] != "Review notes" || have[n-1] != "Keep in sync" {
				out = append(out, p+": a design ends in \"## Review notes\" (what a reviewer rejects) and \"## Keep in sync\" (which change must edit this page)")
			}
			continue
		}
		if !decisionName.MatchString(base) {
			out = append(out, p+": a decision is named NNNN-words-of-the-title.md")
			continue
		}
		if other := numbers[base[:4]]; other != "" {
			out = append(out, p+": has the number of "+other)
		}
		numbers[base[:4]] = base
		for _, want := range []string{"Context", "Options", "Decision", "Cost"} {
			if !slices.Contains(have, want) {
				out = append(out, p+": no section \"## "+want+"\"")
			}
		}
	}
	return out, nil
}

func TestMarkdown(t *testing.T) {
	checkers := map[string]func(fs.FS) ([]string, error){
		"links": checkLinks, "machine paths": checkMachinePaths, "forms": checkDocForms,
	}
	for name, check := range checkers {
		t.Run(name, func(t *testing.T) {
			findings, err := check(root(t))
			if err != nil {
				t.Fatal(err)
			}
			report(t, findings)
		})
	}
}

func TestLinksRefuses(t *testing.T) {
	findings, err := checkLinks(fstest.MapFS{
		"README.md": {Data: []byte("# The `House`, now\n\n[a](docs/a.md) [b](docs/b.md) ![c](docs/c.svg \"t\")\n" +
			"[web](https://example.com/x) [here](#the-house-now) [gone](#gone) `[code](no.md)`\n```\n[fenced](no.md)\n```\n[ref]: docs/no.md\n<img src=\"no.png\">\n")},
		"docs/a.md": {Data: []byte("# A\n## Twice\n## Twice\n[up](../README.md#the-house-now) [2](#twice-1) [out](../../x.md) [abs](/README.md) [dir](../docs)\n[x](../README.md#no)\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	wantFindings(t, findings,
		"README.md:3: link docs/b.md: no such file",
		"README.md:3: link docs/c.svg: no such file",
		"README.md:4: link #gone: no such heading in README.md",
		"README.md:8: link docs/no.md: no such file",
		"README.md:9: link no.png: no such file",
		"docs/a.md:4: link ../../x.md: leads out",
		"docs/a.md:4: link /README.md: leads out",
		"docs/a.md:5: link ../README.md#no: no such heading",
	)
}

func TestMachinePathsRefuses(t *testing.T) {
	wk, home := "/wo"+"rk/", "/ho"+"me/"
	findings, err := checkMachinePaths(fstest.MapFS{
		"a.go":       {Data: []byte("// see " + wk + "main\n// net" + wk + " is fine\n// " + home + "x is fine in code\n")},
		"a.md":       {Data: []byte(home + "me/fairway\n/run/fairway\n")},
		"object.o":   {Data: []byte("\x00 " + wk)},
		".git/x":     {Data: []byte(" " + wk)},
		".ci/run":    {Data: []byte("cd " + wk + "main\n")},
		"testdata/x": {Data: []byte(" " + wk)},
	})
	if err != nil {
		t.Fatal(err)
	}
	wantFindings(t, findings, ".ci/run:1:", "a.go:1:", "a.md:1:")
}

func TestDocFormsRefuses(t *testing.T) {
	whole := "# T\n## Context\n## Options\n## Decision\n## Cost\n"
	findings, err := checkDocForms(fstest.MapFS{
		"docs/design/good.md":          {Data: []byte("# T\n## Way\n## Review notes\n## Keep in sync\n")},
		"docs/design/bad.md":           {Data: []byte("# T\n## Keep in sync\n## Way\n")},
		"docs/decisions/0001-good.md":  {Data: []byte(whole)},
		"docs/decisions/0001-again.md": {Data: []byte(whole)},
		"docs/decisions/2-name.md":     {Data: []byte(whole)},
		"docs/decisions/0002-part.md":  {Data: []byte("# T\n## Context\n## Options\n## Decision\n")},
		"docs/other.md":                {Data: []byte("# T\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	wantFindings(t, findings,
		"0001-good.md: has the number of 0001-again.md",
		`0002-part.md: no section "## Cost"`,
		"2-name.md: a decision is named",
		"docs/design/bad.md: a design ends in",
	)
}
