// Command pause holds a pod's namespaces: the first process of every pod, and the
// only program of its image. It reaps what the pod's other processes leave behind
// where they share its PID namespace, and ends when it is told to.
//
// It opens nothing, allocates nothing after its start, and takes no arguments.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	told := make(chan os.Signal, 8)
	signal.Notify(told, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for s := range told {
		if s != syscall.SIGCHLD {
			return
		}
		for {
			pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if err != syscall.EINTR && (err != nil || pid <= 0) {
				break
			}
		}
	}
}
