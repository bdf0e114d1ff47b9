// Command render prints what the Helm chart makes of values, for who has no Helm:
//
//	go run ./render [-chart DIR] [-values FILE]... [-out FILE]
//
// Of several files of values the later count. The definitions of deploy/crds are not
// among it: who deletes what was printed keeps the objects of their kinds. Exit status 1 if the values are refused, 2 for wrong usage.
package main

import (
	"flag"
	"fmt"
	"os"

	"helm.sh/helm/v3/pkg/chartutil"

	"github.com/fairway-cni/fairway/test/chart"
)

func main() {
	var sets []chart.Values
	dir := flag.String("chart", "../../deploy/chart/fairway", "directory of the chart")
	out := flag.String("out", "", "file to write; empty: standard output")
	flag.Func("values", "file of values; may be repeated", func(file string) error {
		v, err := chartutil.ReadValuesFile(file)
		sets = append(sets, v)
		return err
	})
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "render: usage: no arguments; see -help")
		os.Exit(2)
	}
	if err := run(*dir, *out, sets); err != nil {
		fmt.Fprintln(os.Stderr, "render:", err)
		os.Exit(1)
	}
}

func run(dir, out string, sets []chart.Values) error {
	r, err := chart.Render(dir, sets...)
	if err != nil {
		return err
	}
	if out == "" {
		_, err := os.Stdout.Write(r.Manifests)
		return err
	}
	return os.WriteFile(out, r.Manifests, 0o644)
}
