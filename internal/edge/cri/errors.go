package cri

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// ErrAway says that nobody listens at the socket: the runtime is down, or listens
// elsewhere.
var ErrAway = errors.New("container runtime is away")

// checkSocket is what to do where something listens and answers as no runtime.
const checkSocket = "check that this is the runtime's CRI socket"

// explainDial says what to do about a socket that cannot be connected to.
func explainDial(socket string, err error) error {
	const check = "check that the runtime runs, that this path is its CRI socket, and that the agent's container mounts its directory"
	switch info, statErr := os.Stat(socket); {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; only root may connect: run the agent as root", err)
	case statErr == nil && info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%w: that is no socket; %s", ErrAway, check)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%w: %w; %s", ErrAway, err, check)
	}
	return fmt.Errorf("%w; %s", err, checkSocket)
}

// codeNames are the names of gRPC's status codes ("Status codes and their use in
// gRPC", grpc documentation); the place is the number.
var codeNames = [...]string{
	"OK", "Cancelled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists", "PermissionDenied",
	"ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented", "Internal", "Unavailable",
	"DataLoss", "Unauthenticated",
}

// statusOf is the error that headers or trailers with a gRPC status bring, nil
// for OK.
func statusOf(h http.Header) error {
	text := h.Get("Grpc-Status")
	code, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return fmt.Errorf("answer has the gRPC status %s, which is none", short(text))
	}
	name := "status " + text
	if code < uint64(len(codeNames)) {
		name = codeNames[code]
	}
	// Its text is percent-encoded ("gRPC over HTTP2", grpc documentation).
	why := h.Get("Grpc-Message")
	if plain, err := url.PathUnescape(why); err == nil {
		why = plain
	}
	switch name {
	case "OK":
		return nil
	case "Unimplemented":
		return fmt.Errorf("the runtime says %s: %s; it does not serve CRI v1 here: check that its CRI plugin is on "+
			"(containerd: disabled_plugins in config.toml) and that it is new enough (containerd 1.6)", name, short(why))
	}
	return fmt.Errorf("the runtime says %s: %s", name, short(why))
}

// short quotes what the runtime says for an error.
func short(s string) string {
	const most = 200
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return strconv.Quote(s)
}
