// Command build makes the directory of programs that `fairway-lab up --kubernetes`
// runs: see package programs. It is run in test/kubernetes, and takes the directory
// to be made:
//
//	go run ./build ../../bin/kubernetes
package main

import (
	"fmt"
	"os"

	"github.com/fairway-cni/fairway/test/kubernetes/programs"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go run ./build DIRECTORY, in test/kubernetes")
		os.Exit(2)
	}
	if err := programs.Build(".", os.Args[1], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
