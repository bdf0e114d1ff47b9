// Package guest makes one instance of the lab: what a virtual machine is on
// EC2 is here an init process in namespaces of its own (network, mount, PID,
// UTS, IPC, cgroup), started and ended by the lab.
//
//	   lab process                      guest: own net, mnt, pid, uts, ipc, cgroup
//	+----------------+  lifeline      +--------------------------------------+
//	| Guest          |================| init (PID 1, this program re-executed)|
//	|  NetNS() ------|-> fabric plugs |   |- daemon  agent                    |
//	|                |   ENIs in      |   |- command sh -c ...                |
//	+----------------+                |   `- orphans, reaped                  |
//	        | Dir/guest.sock          +--------------------------------------+
//	        +--- Client.Exec, StartDaemon: argv, env, directory and three ----^
//	             file descriptors; back comes the exit status
//	             (any process of root's: the lab, or `fairway-lab exec`)
//
// What is the guest's own: /proc, /sys, /sys/fs/cgroup, /sys/fs/bpf, /run, and,
// as overlays whose changes live in memory, /etc, /var and /opt; so that the
// daemons of two guests never meet on a path such as /etc/cni or /run. All
// other paths are the host's. /tmp among them: a lab that was built or is
// tested under /tmp must find its own programs there. /dev is the host's, too.
// No file, mount, sysctl or route of the host is changed.
//
// Invariants. Whatever was started in a guest dies with its init: the kernel
// kills a PID namespace with its first process. Init dies when the lab does, in
// whatever way, for the lifeline then reads end of file. What can remain after
// kill -9 of the lab, an empty cgroup and the state directory, is removed by
// [Reap]. A command dies with the connection it was asked on; a daemon does not.
//
// Concurrency: everything exported is safe for concurrent use. The host side
// runs one goroutine per guest (it waits for init) and one per command whose
// signals are forwarded; init runs one per connection.
//
// A program that uses the package calls [MaybeInit] as the first thing in main,
// a test in TestMain.
package guest
