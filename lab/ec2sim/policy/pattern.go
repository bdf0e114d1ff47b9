package policy

import (
	"fmt"
	"slices"
	"strings"
)

// pattern is a text of a policy that is compared: plain text, wildcards and
// variables.
type pattern []part

// part is one of plain text, a wildcard and a variable.
type part struct {
	text     string // plain
	wild     byte   // '*' any text, '?' any one character; 0: none
	variable string // in lower case; empty: none
	def      string // instead of the variable's value where the request has none
	hasDef   bool
}

// A wildcard in the value of a variable is a character like any other, so a
// pattern is compared as glyphs and not as text.
type glyph struct {
	char byte
	wild bool
}

// The variables that stand for a character which would mean something else.
// Source: "IAM policy elements: Variables and tags".
var escapes = map[string]string{"*": "*", "?": "?", "$": "$"}

// parsePattern reads a text. Whether * and ? are wildcards depends on the
// operator.
func parsePattern(text string, wildcards bool) (pattern, error) {
	var p pattern
	plain := ""
	flush := func() {
		if plain != "" {
			p, plain = append(p, part{text: plain}), ""
		}
	}
	for i := 0; i < len(text); i++ {
		switch {
		case strings.HasPrefix(text[i:], "${"):
			inside, _, closed := strings.Cut(text[i+2:], "}")
			if !closed {
				return nil, fmt.Errorf("%q: a variable has no closing brace", text)
			}
			i += len(inside) + 2
			if literal, ok := escapes[inside]; ok {
				plain += literal
				continue
			}
			v, err := parseVariable(inside)
			if err != nil {
				return nil, err
			}
			flush()
			p = append(p, v)
		case wildcards && (text[i] == '*' || text[i] == '?'):
			flush()
			p = append(p, part{wild: text[i]})
		default:
			plain += text[i : i+1]
		}
	}
	flush()
	return p, nil
}

// parseVariable reads "aws:userid" or "aws:PrincipalTag/team, 'none'".
func parseVariable(inside string) (part, error) {
	name, def, hasDef := strings.Cut(inside, ",")
	v := part{variable: strings.ToLower(strings.TrimSpace(name)), hasDef: hasDef}
	if hasDef {
		def = strings.TrimSpace(def)
		if len(def) < 2 || def[0] != '\'' || def[len(def)-1] != '\'' {
			return v, fmt.Errorf("variable ${%s}: the default value must stand in single quotes", inside)
		}
		v.def = def[1 : len(def)-1]
	}
	if !Known(v.variable) {
		return v, fmt.Errorf("variable ${%s}: unknown condition key: known are %s", inside, knownText)
	}
	return v, nil
}

// expand puts the request's values in. It says false if one is missing: then
// the text equals nothing. A key with several values is no variable.
func (p pattern) expand(keys Keys) ([]glyph, bool) {
	var out []glyph
	for _, x := range p {
		switch {
		case x.wild != 0:
			out = append(out, glyph{x.wild, true})
		case x.variable == "":
			out = appendPlain(out, x.text)
		case len(keys[x.variable]) == 1:
			out = appendPlain(out, keys[x.variable][0])
		case x.hasDef:
			out = appendPlain(out, x.def)
		default:
			return nil, false
		}
	}
	return out, true
}

func appendPlain(out []glyph, text string) []glyph {
	for i := range len(text) {
		out = append(out, glyph{char: text[i]})
	}
	return out
}

// matches compares without recursion and in at most len(p)*len(text) steps: on a
// mismatch only the last '*' can take more.
func matches(p []glyph, text string) bool {
	i, j, star, from := 0, 0, -1, 0
	for j < len(text) {
		switch {
		case i < len(p) && p[i] == glyph{'*', true}:
			star, from = i, j
			i++
		case i < len(p) && (p[i] == glyph{'?', true} || p[i] == glyph{char: text[j]}):
			i, j = i+1, j+1
		case star >= 0:
			from++
			i, j = star+1, from
		default:
			return false
		}
	}
	for i < len(p) && (p[i] == glyph{'*', true}) {
		i++
	}
	return i == len(p)
}

// matchesARN compares the six parts of an ARN one by one, so that a wildcard
// does not reach from one into the next. Source: "IAM JSON policy elements:
// Condition operators".
func matchesARN(p []glyph, arn string) bool {
	const parts = 6
	want := make([][]glyph, 0, parts)
	for len(want) < parts-1 {
		at := slices.Index(p, glyph{char: ':'})
		if at < 0 {
			return false
		}
		want, p = append(want, p[:at]), p[at+1:]
	}
	want = append(want, p)
	is := strings.SplitN(arn, ":", parts)
	if len(is) != parts {
		return false
	}
	for i := range want {
		if !matches(want[i], is[i]) {
			return false
		}
	}
	return true
}
