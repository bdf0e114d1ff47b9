package preflight

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"
)

// Result of a line.
type Result string

// The results.
const (
	OK      Result = "ok"
	Warning Result = "warn"    // it works, and somebody should look
	Failed  Result = "FAIL"    // pods have no network, or will have none
	Skipped Result = "skipped" // not looked at; Seen says why
)

// Line is one thing that was looked at.
type Line struct {
	Check  string `json:"check"` // what, in words that stay
	Result Result `json:"result"`
	Seen   string `json:"seen"`
	Do     string `json:"do,omitempty"` // what a person can do
	// Blind says of a skipped line that it matters here and could not be looked at.
	Blind bool `json:"blind,omitempty"`
}

// Report is all lines, in the order in which one reads them: node, EC2, agent.
type Report struct {
	Node      string `json:"node"`      // instance and type, or empty
	Installed bool   `json:"installed"` // Fairway is on the node, or should be
	Lines     []Line `json:"lines"`
}

// Count is how many lines have the result.
func (r Report) Count(result Result) int {
	n := 0
	for _, l := range r.Lines {
		if l.Result == result {
			n++
		}
	}
	return n
}

// Status is the exit status: 1 if something failed, else 2 if something could not
// be looked at, else 0.
func (r Report) Status() int {
	if r.Count(Failed) > 0 {
		return 1
	}
	for _, l := range r.Lines {
		if l.Blind {
			return 2
		}
	}
	return 0
}

// Summary is the report in one line.
func (r Report) Summary() string {
	when := "before Fairway is installed"
	if r.Installed {
		when = "with Fairway installed"
	}
	node := "this node"
	if r.Node != "" {
		node = "node " + r.Node
	}
	return fmt.Sprintf("%s, %s: %d ok, %d warn, %d FAIL, %d skipped", node, when, r.Count(OK), r.Count(Warning), r.Count(Failed), r.Count(Skipped))
}

// Text writes the report for people. What to do is below what was seen.
func (r Report) Text(out io.Writer) error {
	if _, err := fmt.Fprintf(out, "%s\n\n", printable(r.Summary())); err != nil {
		return err
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "RESULT\tWHAT\tSEEN")
	for _, l := range r.Lines {
		fmt.Fprintf(t, "%s\t%s\t%s\n", l.Result, printable(l.Check), printable(l.Seen))
		if l.Do != "" {
			fmt.Fprintf(t, "\t\t-> %s\n", printable(l.Do))
		}
	}
	return t.Flush()
}

// printable keeps a text on its line and a terminal as it is: much of it is what
// EC2, the kernel and files say.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}
