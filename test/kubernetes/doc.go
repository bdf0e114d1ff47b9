// Package kubernetes tests Fairway beside programs of a Kubernetes node that
// others wrote, unchanged and on the real kernel: kube-proxy, and the CNI
// plugins portmap and bandwidth.
//
//	programs      built by package upstream, of the versions that go.mod and, for
//	              kube-proxy, components/go.mod have
//	API server    a few fixed objects over HTTP, list and watch, on loopback of
//	              each instance
//	world         the lab's: two nodes, and an instance outside the cluster
//
// The API server has just these objects, so that each test says what a program was
// told; package e2e, behind the build tag e2e, has a whole cluster.
//
// It is a module of its own, so that what these programs depend on is nothing
// that Fairway depends on. The first run downloads and builds for minutes; all of
// it stays in the caches of Go and of the user.
//
// There is no code in this package but tests; they need root.
package kubernetes
