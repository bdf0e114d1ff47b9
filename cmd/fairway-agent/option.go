package main

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairway-cni/fairway/internal/agent"
	"github.com/fairway-cni/fairway/internal/edge/nodefile"
)

// option is one thing that a user can set: by a flag, by the VPC CNI's variable
// where it has one, by a key of the settings file. [options] is the only place
// that lists them.
type option struct {
	name     string // of the flag, and the key in a file
	variable string // of the environment; empty: none
	help     string // one line; what it means, and its unit
	example  string // a value that makes a difference
	parser
}

// parser reads and writes one setting.
type parser struct {
	kind string                        // what a value is, for the help text
	form nodefile.Form                 // how it may be written in a file beside a single value; empty: not
	set  func(*settings, string) error // the error says what a value must be, or is a [skipped]
	text func(*settings) string        // the value in force
}

// settings are what options set: the agent's configuration, and what is
// translated into it once all are known.
type settings struct {
	cfg              agent.Config
	logFile          string // stdout, stderr or an absolute path
	logLevel         string // one of agent.LogLevels
	metrics          string
	noMetrics        bool
	introspection    string
	noIntrospection  bool
	also             []string // --native-cidrs; these four are canonical prefixes
	nativeCIDR       string
	excluded         []string
	externalServices []string
	tags             string
}

// defaults are the settings of an agent that is told nothing.
func defaults() *settings {
	cfg := agent.Default()
	return &settings{
		cfg: cfg, logFile: "stderr", logLevel: "INFO",
		metrics: cfg.Metrics, introspection: cfg.Introspection, tags: "{}",
	}
}

// skipped says which parts of a value are not used, by the VPC CNI's rule for
// that option, while the rest is.
type skipped struct{ items []string }

func (s *skipped) Error() string { return strings.Join(s.items, "; ") }

func text(field func(*settings) *string) parser {
	return parser{
		kind: "text",
		set:  func(s *settings, v string) error { *field(s) = v; return nil },
		text: func(s *settings) string { return *field(s) },
	}
}

// path is an absolute path; agent.Config.Validate looks at it.
func path(field func(*settings) *string) parser {
	p := text(field)
	p.kind = "path"
	return p
}

// word is one of the given, whose spelling may differ in case.
func word(field func(*settings) *string, words ...string) parser {
	p := text(field)
	p.kind = "word"
	p.set = func(s *settings, v string) error {
		i := slices.IndexFunc(words, func(w string) bool { return strings.EqualFold(w, v) })
		if i < 0 {
			return fmt.Errorf("must be one of %s", strings.Join(words, ", "))
		}
		*field(s) = words[i]
		return nil
	}
	return p
}

// yes is true or false; not is the same for a field that says the opposite.
func yes(field func(*settings) *bool) parser { return boolean(field, true) }
func not(field func(*settings) *bool) parser { return boolean(field, false) }

func boolean(field func(*settings) *bool, meaning bool) parser {
	return parser{
		kind: "bool",
		set: func(s *settings, v string) error {
			b, err := strconv.ParseBool(v)
			if err != nil {
				return errors.New("must be true or false")
			}
			*field(s) = b == meaning
			return nil
		},
		text: func(s *settings) string { return strconv.FormatBool(*field(s) == meaning) },
	}
}

// most is the largest number that means anything: a node with more addresses
// does not exist, and sums of such numbers cannot overflow.
const most = 65535

// whole is a number from 0 to most.
func whole(field func(*settings) *int) parser {
	return parser{
		kind: "number",
		set: func(s *settings, v string) error {
			n, err := strconv.Atoi(v)
			if err != nil || n < 0 || n > most {
				return fmt.Errorf("must be a whole number from 0 to %d", most)
			}
			*field(s) = n
			return nil
		},
		text: func(s *settings) string { return strconv.Itoa(*field(s)) },
	}
}

// mtu is a number of bytes, whose range agent.Config.Validate looks at.
func mtu(field func(*settings) *int, allowed string) parser {
	p := whole(field)
	set := p.set
	p.set = func(s *settings, v string) error {
		if err := set(s, v); err != nil {
			return errors.New("must be a whole number " + allowed)
		}
		return nil
	}
	return p
}

// maximum is a number of which one that is not above zero means none.
func maximum(field func(*settings) *int) parser {
	p := whole(field)
	p.set = func(s *settings, v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n > most {
			return fmt.Errorf("must be a whole number up to %d (0 or less: not used)", most)
		}
		*field(s) = max(n, 0)
		return nil
	}
	return p
}

// span is a duration; a number alone is seconds, as in the VPC CNI's variables.
func span(field func(*settings) *time.Duration) parser {
	return parser{
		kind: "duration",
		set: func(s *settings, v string) error {
			if n, err := strconv.ParseInt(v, 10, 64); err == nil && n <= math.MaxInt64/int64(time.Second) && n >= 0 {
				*field(s) = time.Duration(n) * time.Second
				return nil
			}
			d, err := time.ParseDuration(v)
			if err != nil || d < 0 {
				return errors.New("must be seconds, or a duration as in 90s or 1m30s, and not negative")
			}
			*field(s) = d
			return nil
		},
		text: func(s *settings) string { return field(s).String() },
	}
}
