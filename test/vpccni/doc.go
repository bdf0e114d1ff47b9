// Package vpccni runs the daemon of another network plugin, amazon-vpc-cni-k8s, in
// the lab: what the lab's EC2 and metadata service say must be good enough for a
// program that knows nothing of either.
//
//	aws-k8s-agent   built from its Go module, unchanged. Where Fairway needs a newer
//	                version of a library, the newer one is linked
//	iptables        which the daemon calls: of the machine, or of Debian's package
//	API server      one node and no pods, over HTTP, on loopback of the instance
//	pods            asked for over the daemon's own gRPC, as its plugin does;
//	                nothing is plumbed into them
//	rights          exactly those that the daemon's own documents give it
//
// It is a module of its own, so that what the daemon depends on is nothing that
// Fairway depends on. The first run downloads and builds for minutes; all of it
// stays in the caches of Go and of the user.
//
// There is no code here but tests; they need root.
package vpccni
