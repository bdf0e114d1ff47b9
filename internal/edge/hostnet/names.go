package hostnet

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
)

// PodName is a pod's name by its address.
type PodName struct {
	Addr      netip.Addr
	Namespace string
	Name      string
}

// Bounds of what is read of a runtime's files.
const (
	resultFiles = 8192
	resultBytes = 1 << 20
)

// resultsDir is where libcni keeps what each plugin answered, whichever it was
// (libcni's CacheDir); containerd and CRI-O use it so.
const resultsDir = "/var/lib/cni/results"

// cniNames reads the names of pods from a directory of CNI results. A file that
// is none names nobody.
func cniNames(dir string) []PodName {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var all []PodName
	for _, e := range entries[:min(len(entries), resultFiles)] {
		if info, err := e.Info(); err != nil || !info.Mode().IsRegular() || info.Size() > resultBytes {
			continue
		}
		if b, err := os.ReadFile(filepath.Join(dir, e.Name())); err == nil {
			all = append(all, parseResult(b)...)
		}
	}
	return all
}

// parseResult reads one result as libcni keeps it.
func parseResult(b []byte) []PodName {
	var kept struct {
		Args   [][2]string `json:"cniArgs"`
		Result struct {
			IPs []struct {
				Address string `json:"address"`
			} `json:"ips"`
			IP4 struct { // before version 0.3
				IP string `json:"ip"`
			} `json:"ip4"`
		} `json:"result"`
	}
	if json.Unmarshal(b, &kept) != nil {
		return nil
	}
	var p PodName
	for _, a := range kept.Args {
		switch a[0] {
		case "K8S_POD_NAMESPACE":
			p.Namespace = a[1]
		case "K8S_POD_NAME":
			p.Name = a[1]
		}
	}
	if !p.valid() {
		return nil
	}
	var all []PodName
	texts := []string{kept.Result.IP4.IP}
	for _, ip := range kept.Result.IPs {
		texts = append(texts, ip.Address)
	}
	for _, s := range texts {
		if prefix, err := netip.ParsePrefix(s); err == nil && prefix.Addr().Is4() {
			p.Addr = prefix.Addr()
			all = append(all, p)
		}
	}
	return all
}

// Names of Kubernetes ("Object Names and IDs"): nothing that could be taken for
// a part of a place's name.
var podName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`)

func (p PodName) valid() bool { return podName.MatchString(p.Namespace) && podName.MatchString(p.Name) }
