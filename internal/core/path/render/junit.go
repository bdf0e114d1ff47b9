package render

import (
	"encoding/xml"
	"fmt"

	"github.com/fairway-cni/fairway/internal/core/path"
)

// The part of JUnit's XML that CI systems read: one suite with one test, which
// fails where the verdict is another than the one that is wanted.
type junitSuites struct {
	XMLName  xml.Name   `xml:"testsuites"`
	Tests    int        `xml:"tests,attr"`
	Failures int        `xml:"failures,attr"`
	Suite    junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string    `xml:"name,attr"`
	Tests    int       `xml:"tests,attr"`
	Failures int       `xml:"failures,attr"`
	Case     junitCase `xml:"testcase"`
}

type junitCase struct {
	Class   string        `xml:"classname,attr"`
	Name    string        `xml:"name,attr"`
	Failure *junitFailure `xml:"failure,omitempty"`
	Out     string        `xml:"system-out,omitempty"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr"`
	Text    string `xml:",chardata"`
}

// JUnit is the report as the result of a test that wants a verdict.
func JUnit(r Report, want path.Verdict) (string, error) {
	p := r.Answer.Probe
	c := junitCase{Class: "fairway.path", Name: fmt.Sprintf("%s to %s %s is %s", p.From, p.To, p.Proto, want)}
	failures := 0
	text := Text(r, Style{})
	if r.Answer.Verdict == want {
		c.Out = text
	} else {
		failures = 1
		c.Failure = &junitFailure{fmt.Sprintf("%s, want %s", r.Answer.Verdict, want), string(r.Answer.Verdict), text}
	}
	b, err := xml.MarshalIndent(junitSuites{Tests: 1, Failures: failures, Suite: junitSuite{"fairway path", 1, failures, c}}, "", "  ")
	if err != nil {
		return "", fmt.Errorf("write junit: %w", err)
	}
	return xml.Header + string(b) + "\n", nil
}
