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
	out, cniErr, version := run()
	exit := 0
	if cniErr != nil {
		out, exit = append(cniErr.AppendJSON(nil, version), '\n'), 1
	}
	if _, err := os.Stdout.Write(out); err != nil {
		exit = 1 // the runtime is gone; it will DEL
	}
	os.Exit(exit)
}

// run gives what to print, or an error, and the version of the specification
// to print it in.
func run() (out []byte, cniErr *cniapi.Error, version string) {
	version = cniapi.LatestVersion
	if os.Getenv(cniapi.EnvCommand) == "" {
		os.Stderr.WriteString("fairway-cni is a CNI plugin: a container runtime runs it, with CNI_COMMAND set and a network configuration on standard input\n")
		return nil, &cniapi.Error{Code: cniapi.CodeInvalidEnvironment, Msg: "missing environment variable: " + cniapi.EnvCommand}, version
	}
	stdin, err := io.ReadAll(io.LimitReader(os.Stdin, cniapi.MaxFrame+1))
	if err != nil {
		return nil, &cniapi.Error{Code: cniapi.CodeIO, Msg: "read network configuration on standard input: " + err.Error()}, version
	}
	config, configErr := cniapi.ReadConfig(stdin)
	if config.CNIVersion != "" {
		version = config.CNIVersion
	}
	if os.Getenv(cniapi.EnvCommand) == cniapi.CommandVersion {
		if len(stdin) > 0 && configErr != nil {
			return nil, configErr, version
		}
		return append(cniapi.VersionResult(version), '\n'), nil, version
	}

	req := cniapi.Request{
		Command:     os.Getenv(cniapi.EnvCommand),
		ContainerID: os.Getenv(cniapi.EnvContainerID),
		IfName:      os.Getenv(cniapi.EnvIfName),
		NetNS:       os.Getenv(cniapi.EnvNetNS),
		Args:        os.Getenv(cniapi.EnvArgs),
		Path:        os.Getenv(cniapi.EnvPath),
		Config:      stdin,
	}
	if cniErr := req.ValidateEnvironment(); cniErr != nil {
		return nil, cniErr, version
	}
	if len(stdin) > cniapi.MaxFrame {
		return nil, &cniapi.Error{Code: cniapi.CodeInvalidConfig, Msg: "network configuration on standard input is longer than " + strconv.Itoa(cniapi.MaxFrame) + " bytes"}, version
	}
	if configErr != nil {
		return nil, configErr, version
	}
	if cniErr := cniapi.CheckVersion(req.Command, config.CNIVersion); cniErr != nil {
		return nil, cniErr, version
	}
	if cniErr := config.Validate(); cniErr != nil {
		return nil, cniErr, version
	}
	out, cniErr = ask(config, req)
	return out, cniErr, version
}

// ask brings the request to the agent and says what its answer, or its absence,
// means for the runtime.
func ask(config cniapi.Config, req cniapi.Request) ([]byte, *cniapi.Error) {
	var fds []int
	if req.Command == cniapi.CommandAdd || req.Command == cniapi.CommandCheck {
		pod, cniErr := cniapi.OpenPod(req.NetNS)
		if cniErr != nil {
			return nil, cniErr
		}
		fds = pod.FDs()
	}
	client := cniapi.Client{Socket: config.Socket}
	client.Connect, client.Answer = cniapi.Patience(req.Command)
	reply, err := client.Do(req, fds...)
	switch {
	case err == nil && reply.Err != nil:
		return nil, reply.Err
	case err == nil:
		return reply.Result, nil
	case errors.Is(err, cniapi.ErrTooLarge):
		return nil, &cniapi.Error{Code: cniapi.CodeInvalidConfig, Msg: "request to the agent: " + err.Error()}
	case req.Command == cniapi.CommandDel:
		return nil, spool(config, req, err)
	}
	return nil, unanswered(req.Command, err)
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
