// Package programs builds what a Kubernetes of the lab is made of, from modules and
// packages whose versions are pinned, into one directory.
//
//	components/   a Go module: etcd, kube-*, kubelet, kubectl as one file, and agnhost
//	containerd/   another: containerd, its shim, ctr
//	coredns/      another: CoreDNS, with a cluster's plugins only
//	.             the fourth, this one: CNI plugins; pause and the front of runc, ours
//	Debian        runc, and iptables and nft, where the machine has none
//
// The modules are several because the versions of what they share differ. What is
// downloaded comes from Go's module proxy and the mirrors that the machine's apt is
// configured for. Images are OCI archives, written here: no registry has a part.
//
// Package upstream builds and unpacks; here is what of, and the directory's form.
// Nothing is built twice: Go's own cache knows what is there. The package runs other
// programs, one at a time, and has no state.
package programs
