package agent

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/agent/ipamd"
	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/vpc"
	"github.com/fairway-cni/fairway/internal/edge/kernel"
)

// TestSysctlsOfWhatIsGone takes an ENI's device away, and has the switches looked at
// before the news of it: what goes with the device is nothing to repair. Another
// device's switch is.
func TestSysctlsOfWhatIsGone(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: network namespaces (CAP_SYS_ADMIN)")
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the namespace ends with the thread
		done <- sysctlsOfWhatIsGone()
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func sysctlsOfWhatIsGone() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	if err := errors.Join(boot(), plug(1, "ens6")); err != nil {
		return err
	}
	k, err := kernel.Open()
	if err != nil {
		return err
	}
	defer k.Close()
	var said bytes.Buffer
	log := slog.New(slog.NewTextHandler(&said, nil))
	n := &nodeState{cfg: Default(), log: log, kernel: k,
		book:    ipamd.NewBook(ipamd.Config{}, ipamd.Identity{}, nil, log, time.Now),
		devices: map[vpc.MAC]string{}, pods: map[ipam.Owner]node.Attachment{}, gone: map[ipam.Owner]time.Time{}}
	enis := []vpc.ENI{{ID: "eni-0", MAC: eniMAC(0)}, {ID: "eni-1", MAC: eniMAC(1), DeviceIndex: 1}}
	for i, subnet := range prefixes("10.0.1.0/24 10.0.2.0/24") {
		enis[i].Subnet, enis[i].Primary = subnet, subnet.Addr().Next().Next().Next().Next()
	}
	if _, err := n.drive(enis, nil); err != nil {
		return err
	}
	const forward = "/proc/sys/net/ipv4/ip_forward"
	if err := errors.Join(plug(1, ""), os.WriteFile(forward, []byte("0"), 0)); err != nil {
		return err
	}
	said.Reset()
	n.watchSysctls()
	if strings.Contains(said.String(), "level=ERROR") || !strings.Contains(said.String(), "count=1 ") {
		return fmt.Errorf("the log, want one change and no error:\n%s", &said)
	}
	if b, err := os.ReadFile(forward); err != nil || strings.TrimSpace(string(b)) != "1" {
		return fmt.Errorf("ip_forward is %q, %w", b, err)
	}
	return nil
}
