package agent

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"slices"
	"time"

	"github.com/fairway-cni/fairway/internal/core/ipam"
	"github.com/fairway-cni/fairway/internal/edge/store"
)

// introspection answers what the VPC CNI's introspection answers, in its words, so
// that scripts and people who know it find the same, and the status besides. With
// full, for sockets that only root may use, containers have their ids.
func (s *sight) introspection(full bool) http.Handler {
	enis := share(func(ctx context.Context) (eniInfos, error) { return s.enis(ctx, full) })
	paths := map[string]func(context.Context) (any, error){
		"/v1/enis": func(ctx context.Context) (any, error) { return enis.get(ctx) },
		"/v1/eni-configs": func(ctx context.Context) (any, error) {
			status, err := s.recent.get(ctx)
			return status.Node.Custom, err
		},
		"/v1/networkutils-env-settings": func(context.Context) (any, error) { return networkSettings(s.cfg), nil },
		"/v1/ipamd-env-settings":        func(context.Context) (any, error) { return poolSettings(s.cfg), nil },
		"/v1/status": func(ctx context.Context) (any, error) {
			status, err := s.recent.get(ctx)
			if !full {
				status = status.WithoutContainers()
			}
			return status, err
		},
	}
	mux := http.NewServeMux()
	var names []string
	for path, f := range paths {
		names = append(names, path)
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), loopPatience)
			defer cancel()
			v, err := f(ctx)
			if err != nil {
				http.Error(w, inLoop(err).Error(), http.StatusServiceUnavailable)
				return
			}
			writeJSON(w, v)
		})
	}
	slices.Sort(names)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, map[string][]string{"AvailableCommands": names})
	})
	return mux
}

// rootOnly is the introspection and the profiles of the process. A profile shows
// what is in memory and takes the agent's time, so that the network gets none.
func (s *sight) rootOnly() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", s.introspection(true))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // whoever asked is gone
}

// The types of /v1/enis have the field names of the VPC CNI's answer.

type eniInfos struct {
	TotalIPs    int
	AssignedIPs int
	ENIs        map[string]eniInfo
}

type eniInfo struct {
	ID                 string
	IsPrimary          bool
	IsTrunk            bool
	IsEFA              bool
	DeviceNumber       int
	AvailableIPv4Cidrs map[string]cidrInfo // by prefix: a /28, or a single address's /32
	IPv6Cidrs          map[string]cidrInfo
}

type cidrInfo struct {
	Cidr          net.IPNet
	IPAddresses   map[string]addressInfo // those that pods have, or that rest
	IsPrefix      bool
	AddressFamily string
}

type addressInfo struct {
	Address        string
	IPAMKey        ipamKey
	IPAMMetadata   ipamMetadata
	AssignedTime   time.Time
	UnassignedTime time.Time
}

type ipamKey struct {
	NetworkName string `json:"networkName"`
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifName"`
}

type ipamMetadata struct {
	Namespace string `json:"k8sPodNamespace,omitempty"`
	Name      string `json:"k8sPodName,omitempty"`
}

// enis is the pool, address by address.
func (s *sight) enis(ctx context.Context, full bool) (infos eniInfos, err error) {
	err = s.loop.do(ctx, func(n *nodeState) {
		stats := n.book.Stats()
		infos = eniInfos{TotalIPs: stats.Total, AssignedIPs: stats.Assigned, ENIs: make(map[string]eniInfo)}
		for _, e := range n.book.Managed() {
			info := eniInfo{ID: e.ID, IsPrimary: e.DeviceIndex == 0, DeviceNumber: e.DeviceIndex,
				AvailableIPv4Cidrs: make(map[string]cidrInfo), IPv6Cidrs: make(map[string]cidrInfo)}
			for _, p := range e.Prefixes {
				info.add(p, true)
			}
			for _, a := range e.Secondary {
				info.add(netip.PrefixFrom(a, a.BitLen()), false)
			}
			infos.ENIs[e.ID] = info
		}
		records := n.book.Held()
		ahead := n.clock.Offset() // whoever reads it has the machine's clock
		for _, e := range n.book.Entries() {
			r := records[e.Owner]
			r.CreatedAt, e.Until = r.CreatedAt.Add(-ahead), e.Until.Add(-ahead)
			infos.hold(e, r, n.cfg.CoolDown, full)
		}
	})
	return infos, err
}

func (i eniInfo) add(p netip.Prefix, isPrefix bool) {
	i.AvailableIPv4Cidrs[p.String()] = cidrInfo{IsPrefix: isPrefix, AddressFamily: "4", IPAddresses: make(map[string]addressInfo),
		Cidr: net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
}

// hold enters an address that a pod has, or had.
func (i eniInfos) hold(e ipam.Entry, r store.Record, coolDown time.Duration, full bool) {
	of := e.Prefix
	if !of.IsValid() {
		of = netip.PrefixFrom(e.Addr, e.Addr.BitLen())
	}
	cidr, ok := i.ENIs[e.ENI].AvailableIPv4Cidrs[of.String()]
	if !ok {
		return // no ENI has it
	}
	a := addressInfo{Address: e.Addr.String()}
	switch e.State {
	case ipam.Assigned:
		a.AssignedTime = r.CreatedAt
		a.IPAMMetadata = ipamMetadata{Namespace: r.PodNamespace, Name: r.PodName}
		a.IPAMKey.NetworkName = networkName
		if r.Network != "" {
			a.IPAMKey.NetworkName = r.Network
		}
		if full {
			a.IPAMKey.ContainerID, a.IPAMKey.IfName = e.Owner.ContainerID, e.Owner.IfName
		}
	case ipam.CoolingDown:
		a.UnassignedTime = e.Until.Add(-coolDown)
	case ipam.Free, ipam.Reserved, ipam.Leaving:
		return
	}
	cidr.IPAddresses[a.Address] = a
}

// networkSettings is what the variables of the VPC CNI say about pods' packets, as
// they are in force, whatever said so.
func networkSettings(c Config) map[string]any {
	return map[string]any{
		"AWS_EXTERNAL_SERVICE_CIDRS":         texts(c.Datapath.ExternalServices),
		"AWS_VPC_CNI_NODE_PORT_SUPPORT":      c.Datapath.NodePort,
		"AWS_VPC_ENI_MTU":                    c.Datapath.ENIMTU,
		"AWS_VPC_K8S_CNI_CONFIGURE_RPFILTER": c.Datapath.ConfigureRPFilter,
		"AWS_VPC_K8S_CNI_CONNMARK":           c.Datapath.BoundMark,
		"AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS": texts(c.Native.Also),
		"AWS_VPC_K8S_CNI_EXTERNALSNAT":       c.Datapath.ExternalSNAT,
		"AWS_VPC_K8S_CNI_RANDOMIZESNAT":      c.Datapath.RandomizeSNAT,
		"AWS_VPC_K8S_CNI_VETHPREFIX":         c.VethPrefix,
		"DISABLE_TCP_EARLY_DEMUX":            c.Datapath.NoEarlyDemux,
		"POD_MTU":                            c.PodMTU,
	}
}

// poolSettings is the same about addresses.
func poolSettings(c Config) map[string]any {
	return map[string]any{
		"ADDITIONAL_ENI_TAGS":                   c.ENITags,
		"AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG":    c.CustomNetwork.Enabled,
		"CLUSTER_NAME":                          c.ClusterName,
		"DISABLE_LEAKED_ENI_CLEANUP":            !c.LeakedCleanup,
		"DISABLE_NETWORK_RESOURCE_PROVISIONING": c.Targets.NoProvisioning,
		"ENABLE_BANDWIDTH_PLUGIN":               c.Bandwidth,
		"ENABLE_IMDS_ONLY_MODE":                 c.IMDSOnly,
		"ENABLE_PREFIX_DELEGATION":              c.Targets.Prefixes,
		"ENABLE_SUBNET_DISCOVERY":               c.SubnetDiscovery,
		"ENI_CONFIG_ANNOTATION_DEF":             c.CustomNetwork.AnnotationKey,
		"ENI_CONFIG_LABEL_DEF":                  c.CustomNetwork.LabelKey,
		"IP_COOLDOWN_PERIOD":                    int(c.CoolDown.Seconds()),
		"MANAGE_UNTAGGED_ENI":                   c.ManageUntagged,
		"MAX_ENI":                               c.Targets.MaxENIs,
		"MINIMUM_IP_TARGET":                     c.Targets.MinimumIPs,
		"WARM_ENI_TARGET":                       c.Targets.WarmENIs,
		"WARM_IP_TARGET":                        c.Targets.WarmIPs,
		"WARM_PREFIX_TARGET":                    c.Targets.WarmPrefixes,
	}
}

func texts(prefixes []netip.Prefix) []string {
	list := make([]string, 0, len(prefixes))
	for _, p := range prefixes {
		list = append(list, p.String())
	}
	return list
}
