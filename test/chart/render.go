package chart

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
)

// Namespace is where Fairway is installed.
const Namespace = "kube-system"

// Release is a chart that was rendered.
type Release struct {
	CRDs      []byte // which Helm makes where they are missing, and never changes or deletes
	Manifests []byte // all other objects, in the order in which they can be made
	Notes     string // what Helm's user is told
}

// Values are those of the chart, as a file of values says them.
type Values = map[string]any

// Render renders the chart in a directory. Values that the chart's schema refuses are an
// error; of several sets the later count.
func Render(dir string, sets ...Values) (Release, error) {
	c, err := loader.LoadDir(dir)
	if err != nil {
		return Release{}, fmt.Errorf("load chart %s: %w", dir, err)
	}
	said := Values{}
	for _, set := range sets {
		said = chartutil.MergeTables(maps.Clone(set), said)
	}
	values, err := chartutil.ToRenderValues(c, said, chartutil.ReleaseOptions{Name: "fairway", Namespace: Namespace, IsInstall: true}, nil)
	if err != nil {
		return Release{}, fmt.Errorf("values of the chart: %w", err)
	}
	files, err := engine.Render(c, values)
	if err != nil {
		return Release{}, fmt.Errorf("render chart: %w", err)
	}
	var r Release
	var crds, all bytes.Buffer
	for _, crd := range c.CRDObjects() {
		document(&crds, string(crd.File.Data))
	}
	for _, name := range slices.SortedFunc(maps.Keys(files), inOrder) {
		switch {
		case path.Base(name) == "NOTES.txt":
			r.Notes = files[name]
		case !strings.HasPrefix(filepath.Base(name), "_"):
			document(&all, files[name])
		}
	}
	r.CRDs, r.Manifests = crds.Bytes(), all.Bytes()
	return r, nil
}

// inOrder puts the DaemonSet last, since it needs the others.
func inOrder(a, b string) int {
	last := func(name string) string {
		if path.Base(name) == "daemonset.yaml" {
			return "~" + name
		}
		return name
	}
	return strings.Compare(last(a), last(b))
}

// document adds the documents of a file, but for empty ones.
func document(to *bytes.Buffer, text string) {
	text = strings.TrimPrefix(strings.TrimSpace(text), "---\n")
	if text != "" {
		fmt.Fprintf(to, "---\n%s\n", text)
	}
}
