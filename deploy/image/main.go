// Command image builds Fairway's container image for each processor that it runs on,
// without Docker, and writes it as OCI archives:
//
//	go run ./deploy/image -out DIR [-name REPOSITORY:TAG] [-arch amd64,arm64]
//
// An image has /fairway-agent, /fairway-cni and /fairway, all static, and no shell. It
// runs from the root of the repository. The same sources and Go give the same
// digests; they are printed. Exit status 1 if something fails, 2 for wrong usage.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/fairway-cni/fairway/deploy/oci"
	"github.com/fairway-cni/fairway/test/upstream"
)

// programs are what the image has; the first is what a container runs.
var programs = []string{"fairway-agent", "fairway-cni", "fairway"}

func main() {
	out := flag.String("out", "bin/images", "directory for the archives, fairway-ARCH.tar")
	name := flag.String("name", "fairway.test/fairway:dev", "the image's name: repository and tag")
	archs := flag.String("arch", "amd64,arm64", "processors, as Go names them, with commas between them")
	flag.Parse()
	if flag.NArg() > 0 || !strings.Contains(filepath.Base(*name), ":") {
		fmt.Fprintln(os.Stderr, "image: usage: no arguments, and a -name with a tag; see -help")
		os.Exit(2)
	}
	for _, arch := range strings.Split(*archs, ",") {
		digest, err := write(*out, *name, arch)
		if err != nil {
			fmt.Fprintln(os.Stderr, "image:", err)
			os.Exit(1)
		}
		fmt.Printf("%s  %s  linux/%s\n", digest, archive(*out, arch), arch)
	}
}

func archive(dir, arch string) string { return filepath.Join(dir, "fairway-"+arch+".tar") }

// write builds the programs for a processor and puts them into an archive.
func write(dir, name, arch string) (digest string, err error) {
	built, err := os.MkdirTemp("", "fairway-image-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(built)) }()
	i := oci.Image{Name: name, Arch: arch, Labels: map[string]string{
		"org.opencontainers.image.title":    "fairway",
		"org.opencontainers.image.licenses": "Apache-2.0",
	}}
	packages := make([]string, len(programs))
	for n, p := range programs {
		packages[n] = "./cmd/" + p
		i.Programs = append(i.Programs, filepath.Join(built, p))
	}
	if err := upstream.BuildFor(arch, ".", built, packages...); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return i.WriteFile(archive(dir, arch))
}
