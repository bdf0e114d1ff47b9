package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/fairway-cni/fairway/internal/edge/nodefile"
)

// The ways to say an option, the first that does counts:
//
//	NodeConfig of the cluster > flag > environment > settings file > default
//
// A variable that is set and empty says nothing.

const fileFlag = "config"

// flagValue is an option as a flag. It keeps the text; what it means is told
// later, in one way for flags, variables and the file.
type flagValue struct {
	option
	text  string
	given bool
}

func (v *flagValue) String() string { return v.text }
func (v *flagValue) Type() string   { return v.kind }
func (v *flagValue) Set(s string) error {
	if v.given && v.form == nodefile.List {
		s = v.text + "," + s
	}
	v.text, v.given = s, true
	return nil
}

// register adds the flags of the named options, of all if none is named, and
// --config.
func register(f *pflag.FlagSet, names ...string) {
	f.String(fileFlag, "", "file of settings: YAML, keys named as the flags; flags and environment go before it")
	d := defaults()
	for _, o := range options() {
		if len(names) > 0 && !slices.Contains(names, o.name) {
			continue
		}
		usage := o.help
		if o.variable != "" {
			usage += " (" + o.variable + ")"
		}
		flag := f.VarPF(&flagValue{option: o, text: o.parser.text(d)}, o.name, "", usage)
		if o.kind == "bool" {
			flag.NoOptDefVal = "true"
		}
	}
}

// source is where an option's value was said.
type source struct {
	text string
	from string // for people: "flag", "environment NAME", "FILE:LINE", "default"
	name string // for errors: "--flag", "NAME", "FILE:LINE: key"
	form nodefile.Form
}

// resolution is what all options together say.
type resolution struct {
	*settings
	sources map[string]source // of the options that were said; by name
	implied map[string]string // options that another one sets: by name, the other's name
	skipped []error           // parts of values that are not used
}

// resolve reads the flags that were given, the environment and the file. Each
// error is of usage, in one line.
func resolve(f *pflag.FlagSet, lookup func(string) (string, bool)) (*resolution, error) {
	return resolveOver(f, lookup, nil)
}

// resolveOver is resolve with values by option that go before all.
func resolveOver(f *pflag.FlagSet, lookup func(string) (string, bool), over map[string]string) (*resolution, error) {
	file, err := readFile(f)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	r := &resolution{settings: defaults(), sources: make(map[string]source)}
	for _, o := range options() {
		s, ok := find(o, f, lookup, file)
		if text, set := over[o.name]; set {
			s, ok = source{text: text, from: "NodeConfig", name: nodeConfigSource + o.name}, true
		}
		if !ok {
			continue
		}
		r.sources[o.name] = s
		if s.form != "" && s.form != nodefile.Single && s.form != o.form {
			return nil, fmt.Errorf("%w: %s: must be %s, and is %s", errUsage, s.name, nodefile.Single, s.form)
		}
		err := o.set(r.settings, s.text)
		if some, ok := err.(*skipped); ok { // and not one that wraps it
			for _, item := range some.items {
				r.skipped = append(r.skipped, fmt.Errorf("%s: %s", s.name, item))
			}
		} else if err != nil {
			return nil, fmt.Errorf("%w: %s %q: %w", errUsage, s.name, s.text, err)
		}
	}
	r.cfg.Cluster.Service = inPod(lookup)
	r.implied = r.finish()
	if err := r.validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", errUsage, r.blame(err))
	}
	return r, nil
}

func find(o option, f *pflag.FlagSet, lookup func(string) (string, bool), file map[string]source) (source, bool) {
	if flag := f.Lookup(o.name); flag != nil {
		if v, ok := flag.Value.(*flagValue); ok && v.given {
			return source{text: v.text, from: "flag", name: "--" + o.name}, true
		}
	}
	if o.variable != "" {
		if text, _ := lookup(o.variable); text != "" {
			return source{text: text, from: "environment " + o.variable, name: o.variable}, true
		}
	}
	s, ok := file[o.name]
	return s, ok
}

// finish translates what options say together, and tells which options that
// sets, by the option that says so.
func (s *settings) finish() map[string]string {
	implied := make(map[string]string)
	c := &s.cfg
	c.Native.Also = parsed(s.also, []string{s.nativeCIDR}, s.excluded)
	c.Datapath.ExternalServices = parsed(s.externalServices)
	c.Metrics, c.Introspection = s.metrics, s.introspection
	if s.noMetrics {
		c.Metrics = ""
	}
	if s.noIntrospection {
		c.Introspection = ""
	}
	if c.IMDSOnly {
		if !c.Targets.NoProvisioning {
			c.Targets.NoProvisioning = true
			implied["disable-network-resource-provisioning"] = "imds-only"
		}
		c.Targets.MarkAndTag = false
	}
	if c.Targets.NoProvisioning && c.LeakedCleanup {
		c.LeakedCleanup = false
		implied["disable-leaked-eni-cleanup"] = "disable-network-resource-provisioning"
	}
	return implied
}

// validate looks at what the agent does not know of, and asks it for the rest.
func (s *settings) validate() error {
	if f := s.logFile; f != "stdout" && f != "stderr" && !strings.HasPrefix(f, "/") {
		return fmt.Errorf("log file %q: must be stdout, stderr or an absolute path", f)
	}
	return s.cfg.Validate()
}

// blame puts in front of an error the source of the option that makes the same
// error by itself. An error that takes two options stays as it is.
func (r *resolution) blame(err error) error {
	for _, o := range options() {
		said, ok := r.sources[o.name]
		if !ok {
			continue
		}
		alone := defaults()
		if setErr := o.set(alone, said.text); setErr != nil {
			continue
		}
		alone.finish()
		if same := alone.validate(); same != nil && same.Error() == err.Error() {
			return fmt.Errorf("%s: %w", said.name, err)
		}
	}
	return err
}

// from says for people where the value of an option is from.
func (r *resolution) from(o option) string {
	if by, ok := r.implied[o.name]; ok {
		return "implied by " + by
	}
	if s, ok := r.sources[o.name]; ok {
		return s.from
	}
	return "default"
}
