// Command fairway-cni is the CNI plugin: the container runtime runs it for each
// pod's ADD, DEL and CHECK, and for STATUS, GC and VERSION. It owns nothing and
// decides nothing: it reads the request, opens the pod's network namespace for
// the agent, asks the agent over a unix socket, and prints the answer. What it
// does by itself is to refuse a request that cannot be meant, to answer
// VERSION, and to leave a DEL in the spool when the agent is away.
//
// It runs once for each command, in one thread, and keeps no state. It imports
// as little as it can, because all of that is paid at the start of every pod;
// deps_test.go holds the list.
//
// With "pluginLogFile" in the network configuration it writes a line for each call
// there; see log.go.
//
// Exit status: 0, with a CNI result or nothing on standard output, or 1, with a
// CNI error there.
package main

import (
	"errors"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/fairway-cni/fairway/internal/edge/cniapi"
)

func main() {
	a := answer{version: cniapi.LatestVersion, call: call{started: time.Now()}}
	a.run()
	exit := 0
	if a.err != nil {
		a.out, exit = append(a.err.AppendJSON(nil, a.version), '\n'), 1
	}
	if _, err := os.Stdout.Write(a.out); err != nil {
		exit = 1 // the runtime is gone; it will DEL
	}
	a.duration = time.Since(a.started)
	writeLog(a.config, a.call)
	os.Exit(exit)
}

// answer is what a run comes to: what to print, or an error, and the version of
// the specification to print it in.
type answer struct {
	call
	out     []byte
	version string
	config  cniapi.Config
}

func (a *answer) run() {
	if os.Getenv(cniapi.EnvCommand) == "" {
		os.Stderr.WriteString("fairway-cni is a CNI plugin: a container runtime runs it, with CNI_COMMAND set and a network configuration on standard input\n")
		a.err = &cniapi.Error{Code: cniapi.CodeInvalidEnvironment, Msg: "missing environment variable: " + cniapi.EnvCommand}
		return
	}
	stdin, err := io.ReadAll(io.LimitReader(os.Stdin, cniapi.MaxFrame+1))
	if err != nil {
		a.err = &cniapi.Error{Code: cniapi.CodeIO, Msg: "read network configuration on standard input: " + err.Error()}
		return
	}
	config, configErr := cniapi.ReadConfig(stdin)
	if config.CNIVersion != "" {
		a.version = config.CNIVersion
	}
	if os.Getenv(cniapi.EnvCommand) == cniapi.CommandVersion {
		if len(stdin) > 0 && configErr != nil {
			a.err = configErr
			return
		}
		a.out = append(cniapi.VersionResult(a.version), '\n')
		return
	}
	a.config, a.network = config, config.Name
	a.req = cniapi.Request{
		Command:     os.Getenv(cniapi.EnvCommand),
		ContainerID: os.Getenv(cniapi.EnvContainerID),
		IfName:      os.Getenv(cniapi.EnvIfName),
		NetNS:       os.Getenv(cniapi.EnvNetNS),
		Args:        os.Getenv(cniapi.EnvArgs),
		Path:        os.Getenv(cniapi.EnvPath),
		Config:      stdin,
	}
	if a.err = a.req.ValidateEnvironment(); a.err != nil {
		return
	}
	if len(stdin) > cniapi.MaxFrame {
		a.err = &cniapi.Error{Code: cniapi.CodeInvalidConfig, Msg: "network configuration on standard input is longer than " + strconv.Itoa(cniapi.MaxFrame) + " bytes"}
		return
	}
	if a.err = configErr; a.err != nil {
		return
	}
	if a.err = cniapi.CheckVersion(a.req.Command, config.CNIVersion); a.err != nil {
		return
	}
	if a.err = config.Validate(); a.err != nil {
		return
	}
	a.ask()
}

// ask brings the request to the agent and says what its answer, or its absence,
// means for the runtime.
func (a *answer) ask() {
	if a.req.Command == cniapi.CommandStatus && cniapi.WasReady(a.config.Socket) {
		return // and is, whatever the agent is doing
	}
	var fds []int
	if a.req.Command == cniapi.CommandAdd || a.req.Command == cniapi.CommandCheck {
		pod, cniErr := cniapi.OpenPod(a.req.NetNS)
		if cniErr != nil {
			a.err = cniErr
			return
		}
		fds = pod.FDs()
	}
	client := cniapi.Client{Socket: a.config.Socket}
	client.Connect, client.Answer = cniapi.Patience(a.req.Command)
	reply, err := client.Do(a.req, fds...)
	switch {
	case err == nil:
		a.out, a.err = reply.Result, reply.Err
	case errors.Is(err, cniapi.ErrTooLarge):
		a.err = &cniapi.Error{Code: cniapi.CodeInvalidConfig, Msg: "request to the agent: " + err.Error()}
	case a.req.Command == cniapi.CommandDel:
		a.err = spool(a.config, a.req, err)
		a.spooled = a.err == nil
	default:
		a.err = unanswered(a.req.Command, err)
	}
}

// spool leaves a DEL for the agent to find. With no answer nobody knows whether
// it acted; a release done twice does no harm.
func spool(config cniapi.Config, req cniapi.Request, why error) *cniapi.Error {
	err := cniapi.WriteSpool(config.Spool, cniapi.SpoolEntry{
		ContainerID: req.ContainerID, IfName: req.IfName, NetNS: req.NetNS, Network: config.Name, Time: time.Now(),
	})
	if err == nil {
		return nil
	}
	return &cniapi.Error{Code: cniapi.CodeTryAgainLater,
		Msg:     "the agent is away (" + why.Error() + ") and the DEL could not be left for it: " + err.Error(),
		Details: "start fairway-agent, or make room for the spool " + config.Spool}
}

func unanswered(command string, err error) *cniapi.Error {
	e := &cniapi.Error{Code: cniapi.CodeTryAgainLater, Msg: err.Error(), Details: "is fairway-agent running on this node, and ready?"}
	switch {
	case command == cniapi.CommandStatus:
		e.Code = cniapi.CodeUnavailable
	case errors.Is(err, cniapi.ErrGarbage):
		e.Code = cniapi.CodeDecode
		e.Details = "is it fairway-agent that listens there, and of the release of this plugin?"
	}
	return e
}
