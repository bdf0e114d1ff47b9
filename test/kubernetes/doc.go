// Package kubernetes tests Fairway beside programs of a Kubernetes node that
// others wrote, unchanged and on the real kernel: kube-proxy, and the CNI
// plugins portmap and bandwidth.
//
//	programs      built from their Go modules, whose versions go.mod has
//	iptables      and nft, where the machine has none: from Debian's packages,
//	              unpacked in the user's cache, never installed
//	API server    a few fixed objects over HTTP, list and watch, on loopback of
//	              each instance
//	world         the lab's: two nodes, and an instance outside the cluster
//
// It is a module of its own, so that what these programs depend on is nothing
// that Fairway depends on. The first run downloads and builds for minutes; all of
// it stays in the caches of Go and of the user.
//
// There is no code here but tests; they need root.
package kubernetes
