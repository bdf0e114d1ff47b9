package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/fairway-cni/fairway/internal/edge/nodefile"
)

// readFile reads the settings file that a flag names, if one does.
func readFile(f *pflag.FlagSet) (map[string]source, error) {
	path, err := f.GetString(fileFlag)
	if err != nil || path == "" {
		return nil, err
	}
	list, err := nodefile.ReadSettings(path)
	if err != nil {
		return nil, err
	}
	all := options()
	found := make(map[string]source, len(list))
	for _, s := range list {
		at := fmt.Sprintf("%s:%d", path, s.Line)
		if !slices.ContainsFunc(all, func(o option) bool { return o.name == s.Key }) {
			return nil, fmt.Errorf("%s: %s", at, unknownKey(s.Key, all))
		}
		found[s.Key] = source{text: s.Text, from: at, name: at + ": " + s.Key, form: s.Form}
	}
	return found, nil
}

func unknownKey(key string, all []option) string {
	for _, o := range all {
		if key == o.variable || strings.EqualFold(strings.ReplaceAll(key, "_", "-"), o.name) {
			return fmt.Sprintf("unknown key %q: it is %s here", key, o.name)
		}
	}
	return fmt.Sprintf("unknown key %q: the keys are the flags' names; see fairway-agent --help", key)
}
