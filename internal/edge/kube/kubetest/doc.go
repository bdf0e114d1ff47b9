// Package kubetest is an API server for tests: objects as JSON, lists, watches and
// patches, over HTTP or in memory.
//
//	Server --- Handler, for httptest
//	       '-- Transport, for a test in a bubble of testing/synctest
//
// It has state, versions, a history that can be forgotten (410 Gone), connections that
// can be cut, and can be away. It checks no schema; the tests with a real API server
// do. Paths are those of "Kubernetes API Concepts", Kubernetes documentation.
//
// A Server is safe for concurrent use.
package kubetest
