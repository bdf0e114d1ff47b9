// Command runc runs the real runc, runc.real of its own directory, without the
// limits that containers are to have: an instance of the lab has a cgroup without
// controllers, in which runc fails to write what it is asked for.
//
//	create, run   linux.resources of the bundle's config.json loses all but its devices
//	update        nothing is done
//	all else      as it is
//
// It changes nothing but that file, which was written for this one call, and becomes
// the real program by exec.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	realName   = "runc.real"
	configName = "config.json"
)

func main() {
	if err := run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "runc without limits:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	switch verb, bundle := call(args[1:]); verb {
	case "create", "run":
		if err := unlimit(filepath.Join(bundle, configName)); err != nil {
			return err
		}
	case "update":
		return nil
	}
	program := filepath.Join(filepath.Dir(self), realName)
	if err := syscall.Exec(program, append([]string{"runc"}, args[1:]...), os.Environ()); err != nil {
		return fmt.Errorf("execute %s: %w", program, err)
	}
	return nil
}

// call finds what runc is asked for, if it is one of the verbs that matter here,
// and the bundle, which is the working directory where none is given.
func call(args []string) (verb, bundle string) {
	bundle = "."
	for i, a := range args {
		switch {
		case verb == "" && (a == "create" || a == "run" || a == "update"):
			verb = a
		case (a == "--bundle" || a == "-b") && i+1 < len(args):
			bundle = args[i+1]
		case strings.HasPrefix(a, "--bundle="):
			bundle = strings.TrimPrefix(a, "--bundle=")
		}
	}
	return verb, bundle
}

// unlimit rewrites a container's configuration.
func unlimit(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	changed, err := withoutLimits(text)
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	return os.WriteFile(file, changed, 0o600)
}

// withoutLimits keeps every other word of the configuration, numbers as they are
// written. Source: "Linux Container Configuration", OCI Runtime Specification.
func withoutLimits(text []byte) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var config map[string]any
	if err := d.Decode(&config); err != nil {
		return nil, err
	}
	linux, _ := config["linux"].(map[string]any)
	resources, _ := linux["resources"].(map[string]any)
	for name := range resources {
		if name != "devices" {
			delete(resources, name)
		}
	}
	return json.Marshal(config)
}
