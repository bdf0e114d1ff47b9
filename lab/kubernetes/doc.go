// Package kubernetes makes a lab's instances a Kubernetes cluster: a control plane
// in one of them, and a node in each of the others. All programs are upstream's,
// unchanged; this package writes what they are configured by, starts them, and
// starts them again.
//
//	control-plane                       node-a, node-b, ...
//	+-----------------------------+     +--------------------------------------+
//	| etcd        on loopback     |     | containerd -- shims -- runc          |
//	| kube-apiserver      :6443 <-|-----|- kubelet    :10250 <- exec, logs     |
//	| kube-controller-manager     |     | kube-proxy                           |
//	| kube-scheduler              |     | the world's daemons: a CNI's, say    |
//	+-----------------------------+     +--------------------------------------+
//	          ^ kubectl, from the host, in this instance's network namespace
//
// The package knows of no network plugin: a node is Ready when somebody has left a
// network configuration in its /etc/cni/net.d, as anywhere.
//
// What the cluster is made of is in one directory, [Programs], and comes from
// outside the lab; nothing is downloaded here. On the host the cluster has a
// directory in the lab's own, with the administrator's kubeconfig. In an instance
// it has files below /etc, /var, /run and /opt, which are the instance's own.
//
// Invariants. Desired state is a function of the lab's status: an instance that
// runs is the control plane or a node, so one that was rebooted, or launched by
// EC2's API, becomes a node like the others, and a program that ended is started
// again. The control plane's state is etcd's, in that instance's memory: with a
// reboot of that instance the cluster begins anew. Authentication is by
// certificates of one authority that lives as long as the cluster, authorisation
// by Node and RBAC.
//
// Not as on a machine of its own: containers have cgroups without controllers, for
// an instance has none, so requests count for the scheduler and limits bind nobody;
// and the settings of the kernel that a kubelet wants changed for the whole machine
// are shown to it as it wants them, and stay as they are.
//
// Concurrency: [Start] runs one goroutine that looks at the lab every second, and
// one for each instance while that is being made a node. The methods of [Cluster]
// are safe for concurrent use.
package kubernetes
