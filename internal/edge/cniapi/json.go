package cniapi

import (
	"errors"
	"strconv"
	"unicode/utf8"
)

// maxDepth bounds the recursion of the reader. A network configuration nests
// about five deep.
const maxDepth = 128

// syntaxError says where a JSON text (RFC 8259) stops being one.
type syntaxError struct {
	offset int // bytes from the start of the text
	msg    string
}

func (e *syntaxError) Error() string {
	return e.msg + " at offset " + strconv.Itoa(e.offset)
}

// members reads a JSON text that must be one object, and calls visit for each
// of its members in order, with the key decoded and the value as it stands in
// the text. The whole text is checked before the first call, values included.
// An error of visit ends the walk and is returned.
func members(text []byte, visit func(key string, value []byte) error) error {
	s := scanner{text: text}
	s.space()
	if s.pos == len(text) {
		return s.fail("no JSON object")
	}
	if s.peek() != '{' {
		return s.fail("not a JSON object")
	}
	start := s.pos
	if err := s.value(0); err != nil {
		return err
	}
	s.space()
	if s.pos != len(text) {
		return s.fail("unexpected text after the JSON object")
	}
	s.pos = start
	s.visit = visit
	return s.object(0)
}

// scanner walks a JSON text by recursive descent.
type scanner struct {
	text  []byte
	pos   int
	visit func(key string, value []byte) error // for the members of the outermost object
}

func (s *scanner) fail(msg string) error {
	if s.pos >= len(s.text) {
		return &syntaxError{len(s.text), "unexpected end of JSON"}
	}
	return &syntaxError{s.pos, msg}
}

// peek gives the next byte, 0 at the end; a zero byte is valid nowhere.
func (s *scanner) peek() byte {
	if s.pos < len(s.text) {
		return s.text[s.pos]
	}
	return 0
}

func (s *scanner) space() {
	for s.pos < len(s.text) {
		switch s.text[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

func (s *scanner) value(depth int) error {
	if depth > maxDepth {
		return s.fail("nested too deep")
	}
	switch c := s.peek(); {
	case c == '{':
		return s.object(depth)
	case c == '[':
		return s.array(depth)
	case c == '"':
		return s.string()
	case c == '-' || isDigit(c):
		return s.number()
	case c == 't':
		return s.word("true")
	case c == 'f':
		return s.word("false")
	case c == 'n':
		return s.word("null")
	}
	return s.fail("expected a value")
}

func (s *scanner) object(depth int) error {
	s.pos++ // the brace
	s.space()
	if s.peek() == '}' {
		s.pos++
		return nil
	}
	for {
		s.space()
		if s.peek() != '"' {
			return s.fail("expected a member name in double quotes")
		}
		keyAt := s.pos
		if err := s.string(); err != nil {
			return err
		}
		key := s.text[keyAt:s.pos]
		s.space()
		if s.peek() != ':' {
			return s.fail("expected a colon after the member name")
		}
		s.pos++
		s.space()
		valueAt := s.pos
		if err := s.value(depth + 1); err != nil {
			return err
		}
		if depth == 0 && s.visit != nil {
			name, _ := stringValue(key)
			if err := s.visit(name, s.text[valueAt:s.pos]); err != nil {
				return err
			}
		}
		s.space()
		switch s.peek() {
		case ',':
			s.pos++
		case '}':
			s.pos++
			return nil
		default:
			return s.fail("expected a comma or a closing brace")
		}
	}
}

func (s *scanner) array(depth int) error {
	s.pos++ // the bracket
	s.space()
	if s.peek() == ']' {
		s.pos++
		return nil
	}
	for {
		s.space()
		if err := s.value(depth + 1); err != nil {
			return err
		}
		s.space()
		switch s.peek() {
		case ',':
			s.pos++
		case ']':
			s.pos++
			return nil
		default:
			return s.fail("expected a comma or a closing bracket")
		}
	}
}

func (s *scanner) string() error {
	s.pos++ // the quote
	for s.pos < len(s.text) {
		switch c := s.text[s.pos]; {
		case c == '"':
			s.pos++
			return nil
		case c < 0x20:
			return s.fail("control character in a string")
		case c != '\\':
			s.pos++
		default:
			s.pos++
			if err := s.escape(); err != nil {
				return err
			}
		}
	}
	return s.fail("")
}

func (s *scanner) escape() error {
	switch s.peek() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.pos++
		return nil
	case 'u':
		s.pos++
		for range 4 {
			if _, ok := hexDigit(s.peek()); !ok {
				return s.fail("expected four hexadecimal digits")
			}
			s.pos++
		}
		return nil
	}
	return s.fail("unknown escape in a string")
}

func (s *scanner) number() error {
	if s.peek() == '-' {
		s.pos++
	}
	if s.peek() == '0' {
		s.pos++
	} else if !s.digits() {
		return s.fail("expected a digit")
	}
	if s.peek() == '.' {
		s.pos++
		if !s.digits() {
			return s.fail("expected a digit after the decimal point")
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		if !s.digits() {
			return s.fail("expected a digit in the exponent")
		}
	}
	return nil
}

func (s *scanner) digits() bool {
	start := s.pos
	for isDigit(s.peek()) {
		s.pos++
	}
	return s.pos > start
}

func (s *scanner) word(w string) error {
	for i := range len(w) {
		if s.peek() != w[i] {
			return s.fail("expected a value")
		}
		s.pos++
	}
	return nil
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func hexDigit(c byte) (rune, bool) {
	switch {
	case isDigit(c):
		return rune(c - '0'), true
	case c >= 'a' && c <= 'f':
		return rune(c-'a') + 10, true
	case c >= 'A' && c <= 'F':
		return rune(c-'A') + 10, true
	}
	return 0, false
}

var (
	errNotString = errors.New("not a JSON string")
	errNotInt    = errors.New("not a whole number")
)

// stringValue decodes a value that members gave, which must be a string. What
// is not UTF-8 becomes U+FFFD, as in encoding/json.
func stringValue(value []byte) (string, error) {
	if len(value) < 2 || value[0] != '"' {
		return "", errNotString
	}
	in := value[1 : len(value)-1]
	out := make([]byte, 0, len(in))
	for len(in) > 0 {
		if in[0] != '\\' {
			r, size := utf8.DecodeRune(in)
			out = utf8.AppendRune(out, r)
			in = in[size:]
			continue
		}
		switch in[1] {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			var r rune
			r, in = unicodeEscape(in)
			out = utf8.AppendRune(out, r)
			continue
		default:
			out = append(out, in[1])
		}
		in = in[2:]
	}
	return string(out), nil
}

// unicodeEscape decodes a \uXXXX, or two of them that make one surrogate pair,
// and gives what follows. Half a pair is U+FFFD.
func unicodeEscape(in []byte) (rune, []byte) {
	high, rest := hex4(in[2:]), in[6:]
	if high < 0xd800 || high > 0xdfff {
		return high, rest
	}
	if high < 0xdc00 && len(rest) >= 6 && rest[0] == '\\' && rest[1] == 'u' {
		if low := hex4(rest[2:]); low >= 0xdc00 && low <= 0xdfff {
			return (high-0xd800)<<10 + (low - 0xdc00) + 0x10000, rest[6:]
		}
	}
	return utf8.RuneError, rest
}

func hex4(in []byte) rune {
	var r rune
	for _, c := range in[:4] {
		d, _ := hexDigit(c)
		r = r<<4 | d
	}
	return r
}

// intValue decodes a value that must be a whole number without exponent.
func intValue(value []byte) (int, error) {
	n, err := strconv.Atoi(string(value))
	if err != nil {
		return 0, errNotInt
	}
	return n, nil
}

// appendString appends s as a JSON string. What is not UTF-8 becomes U+FFFD.
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r < 0x20 || r == 0x7f:
			dst = append(dst, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}

// appendMember appends a member with a string value to an object that is being
// written, after a comma unless it is the first.
func appendMember(dst []byte, key, value string) []byte {
	return appendString(appendKey(dst, key), value)
}

func appendKey(dst []byte, key string) []byte {
	if len(dst) > 0 && dst[len(dst)-1] != '{' {
		dst = append(dst, ',')
	}
	return append(appendString(dst, key), ':')
}
