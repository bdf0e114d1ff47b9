// Package cniserver is the agent's half of package cniapi: it listens where the
// CNI plugin knocks, turns a request into a checked [Call], and a [Reply] into
// the result format of the CNI version that was asked for.
//
//	accept -> peer is root? -> frame + 2 fds -> version, names, config, fds ok? -> handler
//	close  <------------------ frame <--------- result in the asked version <-----+
//
// What must hold: a handler sees only calls whose every field has been checked;
// every connection gets an answer that says what was wrong with it, except one
// that closes before it has sent anything; every file descriptor that came in is
// closed when its call ends, whatever was wrong with it. A client can hold one
// of [MaxCalls] places for at most a read and a write timeout of five seconds
// each beyond the time of the handler.
//
// [Serve] runs one goroutine for each connection; the handler is called from
// many at once. A [Call] belongs to the handler until it returns. All else is
// safe for concurrent use. Nothing is logged: what a client did wrong is told to
// the client, and the runtime shows it.
package cniserver
