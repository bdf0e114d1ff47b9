package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// pageWords splits a line of a page as a shell does: blanks, and quotes around words.
// A note stands behind four blanks, and a redirection is the shell's.
func pageWords(line string) []string {
	line, _, _ = strings.Cut(line, "    ")
	line, _, _ = strings.Cut(line, " > ")
	var words []string
	for _, m := range regexp.MustCompile(`'([^']*)'|[^ ']+`).FindAllStringSubmatch(line, -1) {
		if m[1] != "" {
			words = append(words, m[1])
		} else {
			words = append(words, m[0])
		}
	}
	return words
}

// TestReadersPage: what docs/path.md shows is what the program prints; what needs no
// file and no node runs; and all else has flags that there are.
func TestReadersPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/path.md")
	if err != nil {
		t.Fatal(err)
	}
	shown, ran, checked := 0, 0, 0
	for _, block := range regexp.MustCompile("(?ms)^```([^\n]*)\n(.*?)^```$").FindAllStringSubmatch(string(page), -1) {
		language, text := block[1], block[2]
		if language != "" {
			continue
		}
		if rest, ok := strings.CutPrefix(text, "$ fairway "); ok {
			line, want, _ := strings.Cut(rest, "\n")
			if out, _, _ := run(pageWords(line)...); out != want {
				t.Errorf("docs/path.md shows of fairway %s:\n%s\nand it prints:\n%s", line, want, out)
			}
			shown++
			continue
		}
		for line := range strings.Lines(text) {
			line, ok := strings.CutPrefix(strings.TrimSpace(line), "fairway ")
			if !ok {
				continue
			}
			words := pageWords(line)
			if strings.Contains(line, "--example") {
				if _, status, said := run(words...); status != 0 && status != 1 {
					t.Errorf("fairway %s: status %d: %s", line, status, said)
				}
				ran++
				continue
			}
			cmd, rest, err := command().Find(words)
			if err == nil {
				err = cmd.ParseFlags(rest)
			}
			if err != nil {
				t.Errorf("fairway %s: %v", line, err)
			}
			checked++
		}
	}
	// What is written within a line runs too, with its example.
	for _, m := range regexp.MustCompile("`fairway (explain [^`]*)`").FindAllStringSubmatch(string(page), -1) {
		if out, status, said := run(pageWords(m[1])...); status != 0 || out == "" {
			t.Errorf("fairway %s: status %d: %s", m[1], status, said)
		}
		ran++
	}
	if shown < 4 || ran < 5 || checked < 8 {
		t.Errorf("the page has %d outputs, %d commands that run and %d others: too few are found", shown, ran, checked)
	}
}
