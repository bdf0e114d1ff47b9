//go:build ignore

// gen compiles the program and records which sources it came from, for the test
// that finds sources changed without regenerating. It needs clang, llvm-strip
// and the libbpf headers; nobody else does.
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
	triplets, err := filepath.Glob("/usr/include/*-linux-gnu")
	if err != nil {
		log.Fatal(err)
	}
	for _, dir := range triplets { // asm/types.h is there on Debian
		include = append(include, "-idirafter", dir)
	}
	for name, types := range map[string][]string{"drops": {"drop"}, "follow": {"event", "wanted"}} {
		args := []string{"tool", "bpf2go", "-go-package", "tracepoint", "-target", "bpfel"}
		for _, t := range types {
			args = append(args, "-type", t)
		}
		args = append(args, name, "bpf/"+name+".c", "--", "-Wall", "-Werror")
		cmd := exec.Command("go", append(args, include...)...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			log.Fatalf("compile bpf program: %v", err)
		}
	}
	var sums strings.Builder
	for _, file := range []string{"bpf/skb.h", "bpf/drops.c", "bpf/follow.c", "drops_bpfel.o", "follow_bpfel.o"} {
		b, err := os.ReadFile(file)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(b), file)
	}
	if err := os.WriteFile("bpf_sources.sha256", []byte(sums.String()), 0o644); err != nil {
		log.Fatal(err)
	}
}
