package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/fairway-cni/fairway/internal/agent"
	"github.com/fairway-cni/fairway/internal/core/intent"
	"github.com/fairway-cni/fairway/internal/edge/nodefile"
)

// prefixes is a list of IPv4 prefixes. An invalid item stops the start.
func prefixes(field func(*settings) *[]string) parser {
	p := lenientPrefixes(field)
	lenient := p.set
	p.set = func(s *settings, v string) error {
		if err := lenient(s, v); err != nil {
			return fmt.Errorf("must be IPv4 prefixes with commas between them: %w", err)
		}
		return nil
	}
	return p
}

// lenientPrefixes is such a list whose invalid items are skipped, as in the VPC
// CNI: a slip in one must not take the node's network away.
func lenientPrefixes(field func(*settings) *[]string) parser {
	return parser{
		kind: "prefixes",
		form: nodefile.List,
		set: func(s *settings, v string) error {
			var good, bad []string
			for item := range strings.SplitSeq(v, ",") {
				item = strings.TrimSpace(item)
				p, err := netip.ParsePrefix(item)
				switch {
				case item == "":
				case err != nil:
					bad = append(bad, fmt.Sprintf("%q is no prefix", item))
				case !p.Addr().Is4():
					bad = append(bad, fmt.Sprintf("%s is not IPv4", p))
				default:
					good = append(good, p.Masked().String())
				}
			}
			*field(s) = good
			if len(bad) > 0 {
				return &skipped{bad}
			}
			return nil
		},
		text: func(s *settings) string { return strings.Join(*field(s), ",") },
	}
}

// prefix is one IPv4 prefix, or none.
func prefix(field func(*settings) *string) parser {
	p := text(field)
	p.kind = "prefix"
	p.set = func(s *settings, v string) error {
		n, err := netip.ParsePrefix(v)
		switch {
		case v == "":
			*field(s) = ""
		case err != nil || !n.Addr().Is4():
			return errors.New("must be an IPv4 prefix, as in 10.0.0.0/8")
		default:
			*field(s) = n.Masked().String()
		}
		return nil
	}
	return p
}

// parsed are the prefixes of a list that prefixes or prefix has read.
func parsed(lists ...[]string) []netip.Prefix {
	var all []netip.Prefix
	for _, s := range slices.Concat(lists...) {
		if s != "" {
			all = append(all, netip.MustParsePrefix(s))
		}
	}
	return all
}

// nativeScope is whether the VPC's route tables say what is native.
func nativeScope() parser {
	return parser{
		kind: "word",
		set: func(s *settings, v string) error {
			if v != "routes" && v != "vpc" {
				return errors.New("must be routes or vpc (prefixes go to --native-cidrs)")
			}
			s.cfg.Native.VPCOnly = v == "vpc"
			return nil
		},
		text: func(s *settings) string {
			if s.cfg.Native.VPCOnly {
				return "vpc"
			}
			return "routes"
		},
	}
}

func randomize() parser {
	return parser{
		kind: "word",
		set: func(s *settings, v string) error {
			switch r := intent.RandomizeSNAT(strings.ToLower(v)); r {
			case intent.PRNG, intent.HashRandom, intent.NoRandom:
				s.cfg.Datapath.RandomizeSNAT = r
				return nil
			}
			return fmt.Errorf("must be one of %s, %s, %s", intent.PRNG, intent.HashRandom, intent.NoRandom)
		},
		text: func(s *settings) string { return string(s.cfg.Datapath.RandomizeSNAT) },
	}
}

func mark() parser {
	return parser{
		kind: "number",
		set: func(s *settings, v string) error {
			n, err := strconv.ParseUint(v, 0, 32)
			if err != nil {
				return errors.New("must be a number of one bit, as in 0x80 or 128")
			}
			s.cfg.Datapath.BoundMark = uint32(n)
			return nil
		},
		text: func(s *settings) string { return fmt.Sprintf("%#x", s.cfg.Datapath.BoundMark) },
	}
}

// tags is a JSON object of texts, as in the VPC CNI. A key that holds the
// reserved name is left out, as there.
func tags() parser {
	return parser{
		kind: "JSON",
		form: nodefile.Mapping,
		set: func(s *settings, v string) error {
			var all map[string]string
			if err := json.Unmarshal([]byte(v), &all); err != nil || all == nil {
				return errors.New(`must be a JSON object of texts, as in {"team":"net"}`)
			}
			var left []string
			for key := range all {
				if strings.Contains(key, agent.ReservedTag) {
					left = append(left, fmt.Sprintf("tag %q: %s is reserved", key, agent.ReservedTag))
					delete(all, key)
				}
			}
			var text bytes.Buffer
			e := json.NewEncoder(&text)
			e.SetEscapeHTML(false)
			if err := e.Encode(all); err != nil {
				return err
			}
			s.cfg.ENITags, s.tags = all, strings.TrimSpace(text.String())
			if len(all) == 0 {
				s.cfg.ENITags = nil
			}
			if len(left) > 0 {
				slices.Sort(left)
				return &skipped{left}
			}
			return nil
		},
		text: func(s *settings) string { return s.tags },
	}
}

// socketPath is an absolute path, which may be written as a URL with the scheme
// unix, as kubelet's flags have it.
func socketPath(field func(*settings) *string) parser {
	p := path(field)
	p.set = func(s *settings, v string) error { *field(s) = strings.TrimPrefix(v, "unix://"); return nil }
	return p
}
