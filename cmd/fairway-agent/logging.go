package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
)

// levels are those of agent.LogLevels as slog has them. Nothing is logged at
// FATAL: what ends the agent is the line that it prints when it ends.
var levels = map[string]slog.Level{
	"DEBUG": slog.LevelDebug, "INFO": slog.LevelInfo, "WARN": slog.LevelWarn, "ERROR": slog.LevelError, "FATAL": slog.LevelError + 4,
}

// newLog opens the agent's log. The function closes it.
func newLog(s *settings) (*slog.Logger, func() error, error) {
	// Also where there is no file, so that the signal never ends an agent.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	var w io.Writer
	done := func() error { return nil }
	switch s.logFile {
	case "stdout":
		w = os.Stdout
	case "stderr":
		w = os.Stderr
	default:
		err := os.MkdirAll(filepath.Dir(s.logFile), 0o755)
		if err != nil {
			return nil, nil, fmt.Errorf("make directory of log file: %w", err)
		}
		f, err := openLog(s.logFile)
		if err != nil {
			return nil, nil, fmt.Errorf("open log file: %w", err)
		}
		l := &logFile{path: s.logFile, hangup: hangup, complain: os.Stderr, file: f}
		w, done = l, l.close
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: levels[s.logLevel]})), done, nil
}

// logFile is a file that grows at its end and is opened again by its path after
// a SIGHUP, at the next line: so a rotation is a rename, and a signal.
//
//	rename agent.log agent.log.1; kill -HUP; (the next line) -> a new agent.log
type logFile struct {
	path     string
	hangup   <-chan os.Signal
	complain io.Writer // hears why the file could not be opened again

	mu   sync.Mutex
	file *os.File
}

func openLog(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}

// Write writes one line. Where the path cannot be opened again the lines go to
// the file of before: better there than nowhere.
func (l *logFile) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.hangup:
		f, err := openLog(l.path)
		if err != nil {
			fmt.Fprintln(l.complain, "fairway-agent: open log file again:", err)
			break
		}
		if err := l.file.Close(); err != nil {
			fmt.Fprintln(l.complain, "fairway-agent: close log file:", err)
		}
		l.file = f
	default:
	}
	return l.file.Write(line)
}

func (l *logFile) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}
