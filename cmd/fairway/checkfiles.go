package main

import (
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/fairway-cni/fairway/internal/core/path"
	"github.com/fairway-cni/fairway/internal/core/preflight"
)

// maxFile bounds each file that a check reads, in bytes.
const maxFile = 1 << 20

func readSome(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile))
}

// readLists reads the runtime's network configurations: the files that libcni
// takes, by name.
func readLists(dir string) path.Part[[]preflight.List] {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return path.Known[[]preflight.List](nil)
	}
	if err != nil {
		return path.Unknown[[]preflight.List](err.Error())
	}
	var all []preflight.List
	for _, e := range entries {
		switch filepath.Ext(e.Name()) {
		case ".conf", ".conflist", ".json":
			all = append(all, readList(filepath.Join(dir, e.Name())))
		}
	}
	return path.Known(all)
}

func readList(file string) preflight.List {
	l := preflight.List{File: filepath.Base(file)}
	b, err := readSome(file)
	var conf struct {
		Name    string
		Type    string // of a single configuration
		Plugins []struct{ Type string }
	}
	if err == nil {
		err = json.Unmarshal(b, &conf)
	}
	switch {
	case err != nil:
		l.Problem = err.Error()
	case conf.Type == "" && len(conf.Plugins) == 0:
		l.Problem = "it names no plugin"
	}
	l.Name = conf.Name
	if conf.Type != "" {
		l.Plugins = []string{conf.Type}
	}
	for _, p := range conf.Plugins {
		l.Plugins = append(l.Plugins, p.Type)
	}
	return l
}

// readPlugin reads the release that the plugin was built from.
func readPlugin(dir string) path.Part[preflight.Program] {
	p := preflight.Program{File: filepath.Join(dir, preflight.OurPlugin)}
	fi, err := os.Stat(p.File)
	if err != nil {
		return path.Unknown[preflight.Program](err.Error())
	}
	info, err := buildinfo.ReadFile(p.File)
	switch {
	case !fi.Mode().IsRegular() || fi.Mode()&0o111 == 0:
		p.Problem = "it is not a file that can be executed"
	case err != nil:
		p.Problem = "it is no program of Fairway: it was not built by Go"
	case filepath.Base(info.Path) != preflight.OurPlugin:
		p.Package, p.Problem = info.Path, "it is another program: "+info.Path
	default:
		p.Package, p.Version = info.Path, info.Main.Version
	}
	return path.Known(p)
}

// kubeletFiles are where the usual images have kubelet's configuration.
var kubeletFiles = []string{"/var/lib/kubelet/config.yaml", "/etc/kubernetes/kubelet/config.json", "/etc/kubernetes/kubelet/kubelet-config.json"}

// maxPodsOf finds kubelet's setting in a configuration in YAML or JSON.
var maxPodsOf = regexp.MustCompile(`(?m)(?:^|[{,])\s*"?maxPods"?\s*:\s*(\d+)`)

// kubeletDefault is how many pods kubelet runs where it is told nothing
// (KubeletConfiguration v1beta1, maxPods).
const kubeletDefault = 110

// readKubelet finds how many pods kubelet runs: by its flags, which win, or by its
// configuration. running are processes' names by PID.
func readKubelet(running map[string]string) path.Part[preflight.Kubelet] {
	files, runs := kubeletFiles, false
	for pid, name := range running {
		if name != "kubelet" {
			continue
		}
		runs = true
		b, _ := readSome("/proc/" + pid + "/cmdline")
		flags := strings.Split(string(b), "\x00")
		if text, ok := flag(flags, "--max-pods"); ok {
			if n, err := strconv.Atoi(text); err == nil {
				return path.Known(preflight.Kubelet{MaxPods: n, Source: "--max-pods"})
			}
		}
		if file, ok := flag(flags, "--config"); ok {
			files = []string{file}
		}
	}
	for _, file := range files {
		b, err := readSome(file)
		if err != nil {
			continue
		}
		if m := maxPodsOf.FindSubmatch(b); m != nil {
			n, err := strconv.Atoi(string(m[1]))
			if err == nil {
				return path.Known(preflight.Kubelet{MaxPods: n, Source: "maxPods of " + file})
			}
		}
		return path.Known(preflight.Kubelet{MaxPods: kubeletDefault, Source: fmt.Sprintf("its default: %s says nothing", file)})
	}
	if runs {
		return path.Known(preflight.Kubelet{MaxPods: kubeletDefault, Source: "its default"})
	}
	return path.Unknown[preflight.Kubelet]("no kubelet runs here, and no configuration of it was found")
}

// flag is the value of a command line's flag, in either form.
func flag(args []string, name string) (string, bool) {
	for i, a := range args {
		if v, ok := strings.CutPrefix(a, name+"="); ok {
			return v, true
		}
		if a == name && i+1 < len(args) {
			return args[i+1], true
		}
	}
	return "", false
}
