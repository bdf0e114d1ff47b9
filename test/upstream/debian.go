package upstream

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// ErrNone says that a program is neither here nor to be had.
var ErrNone = errors.New("neither the program nor apt-get is on this machine")

// tools are the packages, by a program that shows that the machine has one, and
// what of it becomes a program of instances: name -> file and first argument.
var tools = []struct {
	program, pkg string
	commands     map[string]string
}{
	{"iptables", "iptables", map[string]string{
		"iptables": "xtables-nft-multi iptables", "iptables-save": "xtables-nft-multi iptables-save", "iptables-restore": "xtables-nft-multi iptables-restore",
		"ip6tables": "xtables-nft-multi ip6tables", "ip6tables-save": "xtables-nft-multi ip6tables-save", "ip6tables-restore": "xtables-nft-multi ip6tables-restore",
	}},
	{"nft", "nftables", map[string]string{"nft": "nft"}},
}

// Netfilter puts iptables and nft, or those of them that are named, into a directory of
// programs, where the machine has none of its own. [ErrNone]: they cannot be had.
func Netfilter(into string, names ...string) error {
	for _, tool := range tools {
		if works(tool.program) || len(names) > 0 && !slices.Contains(names, tool.program) {
			continue
		}
		root, err := unpacked(tool.pkg)
		if err != nil {
			return fmt.Errorf("get %s: %w", tool.program, err)
		}
		libraries, err := filepath.Glob(filepath.Join(root, "usr/lib/*-linux-gnu*"))
		if err != nil {
			return err
		}
		for name, command := range tool.commands {
			script := fmt.Sprintf("#!/bin/sh\nLD_LIBRARY_PATH=%s XTABLES_LIBDIR=%s exec %s \"$@\"\n",
				strings.Join(libraries, ":"), filepath.Join(strings.Join(libraries, ""), "xtables"), filepath.Join(root, "usr/sbin", command))
			if err := os.WriteFile(filepath.Join(into, name), []byte(script), 0o755); err != nil {
				return err
			}
		}
	}
	return nil
}

// Runc is the path of the machine's own runc, or of Debian's. One that is built here
// would need libseccomp's headers: without them it refuses the profile that every
// pod's first container has. [ErrNone]: it cannot be had.
func Runc() (string, error) {
	if works("runc") {
		return exec.LookPath("runc")
	}
	root, err := unpacked("runc")
	if err != nil {
		return "", fmt.Errorf("get runc: %w", err)
	}
	return filepath.Join(root, "usr/sbin/runc"), nil
}

// works says whether the machine has a program. One that is there and does not run
// is none.
func works(program string) bool { return exec.Command(program, "--version").Run() == nil }

// unpacked gives a directory with the files of a Debian package, and of those
// that it depends on and the machine has not. Nothing is installed.
func unpacked(pkg string) (string, error) {
	for _, program := range []string{"apt-get", "apt-cache", "dpkg-deb", "dpkg-query"} {
		if _, err := exec.LookPath(program); err != nil {
			return "", fmt.Errorf("%w: %w", ErrNone, err)
		}
	}
	dir, err := cache("debian")
	if err != nil {
		return "", err
	}
	root := filepath.Join(dir, pkg)
	if _, err := os.Stat(root); err == nil {
		return root, nil
	}
	temp, err := os.MkdirTemp(dir, "."+pkg+"-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	a := apt{dir: temp}
	if err := a.download(pkg); err != nil {
		// The machine's lists are missing or old, and stay as they are.
		lists := filepath.Join(temp, "lists")
		if err := os.MkdirAll(filepath.Join(lists, "partial"), 0o755); err != nil {
			return "", err
		}
		a.options = []string{"-o", "Dir::State::lists=" + lists}
		if _, err := a.run("apt-get", "update"); err != nil {
			return "", err
		}
		if err := a.download(pkg); err != nil {
			return "", err
		}
	}
	files, err := filepath.Glob(filepath.Join(temp, "*.deb"))
	if err != nil {
		return "", err
	}
	made := filepath.Join(temp, "root")
	for _, f := range files {
		if _, err := a.run("dpkg-deb", "--extract", f, made); err != nil {
			return "", err
		}
	}
	// All at once: another run may do the same.
	if err := os.Rename(made, root); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	return root, nil
}

// apt runs programs of apt and dpkg in a directory.
type apt struct {
	dir     string
	options []string
}

func (a apt) run(program string, args ...string) (string, error) {
	var options []string
	if strings.HasPrefix(program, "apt-") {
		// Not as the user _apt, who may not write in the directory.
		options = append([]string{"-o", "APT::Sandbox::User=root", "-o", "Dir::Cache=" + a.dir}, a.options...)
	}
	c := exec.Command(program, append(options, args...)...)
	c.Dir = a.dir
	var complaint strings.Builder
	c.Stderr = &complaint
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", c, err, strings.TrimSpace(complaint.String()))
	}
	return string(out), nil
}

// download gets the package, and what it needs as far as that is not installed.
func (a apt) download(pkg string) error {
	out, err := a.run("apt-cache", "depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts",
		"--no-breaks", "--no-replaces", "--no-enhances", pkg)
	if err != nil {
		return err
	}
	command := []string{"download"}
	for line := range strings.Lines(out) {
		name := strings.TrimSpace(line)
		if line[0] == ' ' || line[0] == '<' { // a relation, a virtual package
			continue
		}
		status, err := a.run("dpkg-query", "--show", "--showformat=${db:Status-Status}", name)
		if name == pkg || err != nil || status != "installed" {
			command = append(command, name)
		}
	}
	_, err = a.run("apt-get", command...)
	return err
}
