// Command fairway-lab runs a VPC on one machine: EC2's API, the instance
// metadata service and a fabric of real packets. See package lab/cli.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/fairway-cni/fairway/lab/cli"
	"github.com/fairway-cni/fairway/lab/guest"
)

func main() {
	guest.MaybeInit()
	program, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "fairway-lab: find own program:", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	columns, _ := strconv.Atoi(os.Getenv("COLUMNS"))
	status := cli.Main(ctx, cli.Env{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Columns: columns,
		Program: program,
		BinDirs: []string{filepath.Dir(program)},
		Term:    os.Getenv("TERM"),
		Inherited: func(fd int) *os.File {
			return os.NewFile(uintptr(fd), "inherited")
		},
	}, os.Args[1:])
	stop()
	os.Exit(status)
}
