package main

import (
	"os"
	"strconv"
	"time"

	"github.com/fairway-cni/fairway/internal/edge/cniapi"
)

// level is a level of the log.
type level int

const (
	debug level = iota
	info
	warn
	bad
	fatal
)

var levelNames = [...]string{debug: "DEBUG", info: "INFO", warn: "WARN", bad: "ERROR", fatal: "FATAL"}

// call is one run of the plugin, as its log has it.
type call struct {
	req      cniapi.Request
	network  string
	started  time.Time
	spooled  bool // a DEL was left for the agent
	err      *cniapi.Error
	duration time.Duration // from the start of main
}

// writeLog writes one line about the call, in the form of log/slog's text, which
// is not linked for the time that it takes to start:
//
//	time=2026-01-02T03:04:05.678Z level=INFO msg=ADD network=fairway container=c interface=eth0 duration=1.234ms
//
// Success is INFO, what the runtime will try again WARN, any other error ERROR;
// at DEBUG the arguments are there too. No result and no error of a call depends on
// its log: what cannot be written goes to standard error, which runtimes keep or
// drop as they like.
func writeLog(c cniapi.Config, l call) {
	if c.LogFile == "" {
		return
	}
	least, known := parseLevel(c.LogLevel)
	if !known {
		complain("pluginLogLevel " + strconv.Quote(c.LogLevel) + ": must be DEBUG, INFO, WARN, ERROR or FATAL")
	}
	of := l.level()
	if of < least {
		return
	}
	line := l.line(of, least == debug)
	if c.LogFile == "stderr" {
		os.Stderr.Write(line)
		return
	}
	if c.LogFile[0] != '/' {
		complain("pluginLogFile " + strconv.Quote(c.LogFile) + ": must be stderr or an absolute path")
		return
	}
	if err := appendTo(c.LogFile, line); err != nil {
		complain("write log: " + err.Error())
	}
}

func complain(msg string) { os.Stderr.WriteString("fairway-cni: " + msg + "\n") }

// appendTo opens the file for the one line, so that a rotation needs no signal.
// Lines of calls at the same time do not mix: each is one write at the end.
func appendTo(path string, line []byte) error {
	const flags = os.O_WRONLY | os.O_CREATE | os.O_APPEND
	f, err := os.OpenFile(path, flags, 0o600)
	if os.IsNotExist(err) {
		if err := os.MkdirAll(path[:lastSlash(path)+1], 0o755); err != nil {
			return err
		}
		f, err = os.OpenFile(path, flags, 0o600)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(line)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

func lastSlash(path string) int {
	i := len(path) - 1
	for path[i] != '/' { // an absolute path has one
		i--
	}
	return i
}

func (l call) level() level {
	switch {
	case l.err == nil && l.spooled:
		return warn
	case l.err == nil:
		return info
	case l.err.Code == cniapi.CodeTryAgainLater, l.err.Code == cniapi.CodeUnavailable, l.err.Code == cniapi.CodeLimited:
		return warn
	}
	return bad
}

func (l call) line(of level, detailed bool) []byte {
	b := make([]byte, 0, 512)
	b = append(b, "time="...)
	b = l.started.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
	b = append(b, " level="...)
	b = append(b, levelNames[of]...)
	b = field(b, "msg", l.req.Command)
	b = field(b, "network", l.network)
	b = field(b, "container", l.req.ContainerID)
	b = field(b, "interface", l.req.IfName)
	if detailed {
		b = field(b, "netns", l.req.NetNS)
		b = field(b, "args", l.req.Args)
		b = field(b, "path", l.req.Path)
	}
	b = append(b, " duration="...)
	b = strconv.AppendFloat(b, float64(l.duration)/float64(time.Millisecond), 'f', 3, 64)
	b = append(b, "ms"...)
	if l.spooled {
		b = field(b, "result", "left for the agent, which is away")
	}
	if l.err != nil {
		b = field(b, "code", strconv.FormatUint(uint64(l.err.Code), 10))
		b = field(b, "error", l.err.Msg)
		b = field(b, "details", l.err.Details)
	}
	return append(b, '\n')
}

// field appends " key=value", the value in quotes where a reader of such lines
// needs them. An empty value is left out.
func field(b []byte, key, value string) []byte {
	const most = 1024 // bytes; what a runtime passes is not ours
	if value == "" {
		return b
	}
	if len(value) > most {
		value = value[:most] + "..."
	}
	b = append(b, ' ')
	b = append(b, key...)
	b = append(b, '=')
	for i := range len(value) {
		if c := value[i]; c <= ' ' || c == '"' || c == '=' || c >= 0x7f {
			return strconv.AppendQuote(b, value)
		}
	}
	return append(b, value...)
}

// parseLevel reads a level's name in any case; INFO and false for no level, INFO
// for an empty one.
func parseLevel(name string) (level, bool) {
	for l, n := range levelNames {
		if sameWord(n, name) {
			return level(l), true
		}
	}
	return info, name == ""
}

// sameWord tells whether name is word, which has capital letters only. Package
// strings and its tables are not linked.
func sameWord(word, name string) bool {
	if len(word) != len(name) {
		return false
	}
	for i := range len(word) {
		if name[i] != word[i] && name[i] != word[i]+'a'-'A' {
			return false
		}
	}
	return true
}
