package main

import (
	"context"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/fairway-cni/fairway/internal/edge/cniapi"
	"github.com/fairway-cni/fairway/internal/edge/cniapi/cniserver"
)

// BenchmarkAdd is from exec to result, with an agent that does nothing.
func BenchmarkAdd(b *testing.B) {
	pod := newPod(b)
	n := newNode(b)
	n.serve(b, func(_ context.Context, c *cniserver.Call) cniserver.Reply { return podResult(c) })
	config := n.config("1.1.0")
	for b.Loop() {
		wantSuccess(b, runCmd(b, exec.Command(plugin), config, env("ADD", pod)...))
	}
}

// BenchmarkLog is what a log file adds to that.
func BenchmarkLog(b *testing.B) {
	c := cniapi.Config{LogFile: filepath.Join(b.TempDir(), "plugin.log")}
	l := call{req: cniapi.Request{Command: "ADD", ContainerID: "c", IfName: "eth0"}, network: "fairway", started: time.Now()}
	for b.Loop() {
		writeLog(c, l)
	}
}

// BenchmarkDel is an ADD without the pod's namespace.
func BenchmarkDel(b *testing.B) {
	n := newNode(b)
	n.serve(b, func(context.Context, *cniserver.Call) cniserver.Reply { return cniserver.Reply{} })
	config := n.config("1.1.0")
	for b.Loop() {
		wantSuccess(b, runCmd(b, exec.Command(plugin), config, env("DEL", "")...))
	}
}

// BenchmarkVersion is the start and nothing else.
func BenchmarkVersion(b *testing.B) {
	for b.Loop() {
		wantSuccess(b, runCmd(b, exec.Command(plugin), "{}", "CNI_COMMAND=VERSION"))
	}
}
