//go:build ignore

// gen compiles the programs and records which sources they came from, for the
// test that finds sources changed without regenerating. It needs clang,
// llvm-strip and the libbpf headers; nobody else does.
package main

import (
	"crypto/sha256"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	log.SetFlags(0)
	var include []string
	// asm/types.h lives in a directory per architecture on Debian, which clang
	// does not search when it compiles for BPF.
	triplets, err := filepath.Glob("/usr/include/*-linux-gnu")
	if err != nil {
		log.Fatal(err)
	}
	for _, dir := range triplets {
		include = append(include, "-idirafter", dir)
	}
	for _, object := range [][]string{
		{"-type", "reason", "-type", "filter", "bpf", "bpf/fabric.c"},
		{"fault", "bpf/fault.c"}, // loaded only while there is a fault
	} {
		args := append([]string{"tool", "bpf2go", "-go-package", "fabric", "-target", "bpfel"}, object...)
		cmd := exec.Command("go", append(append(args, "--", "-Wall", "-Werror"), include...)...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			log.Fatalf("compile bpf programs: %v", err)
		}
	}

	var sums strings.Builder
	for _, pattern := range []string{"bpf/*.[ch]", "*_bpfel.o"} {
		files, err := filepath.Glob(pattern) // sorted
		if err != nil {
			log.Fatal(err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				log.Fatal(err)
			}
			fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(b), file)
		}
	}
	if err := os.WriteFile("bpf_sources.sha256", []byte(sums.String()), 0o644); err != nil {
		log.Fatal(err)
	}
}
