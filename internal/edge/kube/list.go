package kube

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/fairway-cni/fairway/internal/core/path"
)

// Listing is what packets' ends are called, as an API server lists it once. What
// it did not give is unknown, with its reason.
type Listing struct {
	Services path.Part[[]path.Service]
	Pods     path.Part[[]path.ListedPod]
}

// Bounds of a listing. A page of 500 pods is some 5 MB; 150,000 pods are a cluster
// of the size that is the largest ("Considerations for large clusters", Kubernetes
// documentation).
const (
	pageItems = 500
	maxPage   = 64 << 20 // bytes
	maxPages  = 400
)

// List asks the API server once for Services, their EndpointSlices and pods, of all
// namespaces. It needs the right to list them and no other; each that is refused is
// unknown by itself. cluster labels all of them. An error says that there is nobody
// to ask.
func List(ctx context.Context, cfg Config, cluster string) (Listing, error) {
	l, err := newCaller(cfg)
	if err != nil {
		return Listing{}, err
	}
	var out Listing
	services, err := pages[service](ctx, l, "/api/v1/services")
	out.Services = part(servicesOf(services, cluster), err)
	if err == nil {
		slices, err := pages[endpointSlice](ctx, l, "/apis/discovery.k8s.io/v1/endpointslices")
		addBackends(out.Services.Value, slices, err)
	}
	pods, err := pages[listedPod](ctx, l, "/api/v1/pods")
	out.Pods = part(podsOf(pods, cluster), err)
	return out, nil
}

func part[T any](v []T, err error) path.Part[[]T] {
	if err != nil {
		return path.Unknown[[]T](err.Error())
	}
	return path.Known(v)
}

// pages lists all objects of a path.
func pages[T any](ctx context.Context, c caller, path string) ([]T, error) {
	var all []T
	next := ""
	for range maxPages {
		var page struct {
			Metadata struct {
				Continue string `json:"continue"`
			} `json:"metadata"`
			Items []T `json:"items"`
		}
		if err := c.call(ctx, request{path: path, query: url.Values{"limit": {strconv.Itoa(pageItems)}, "continue": {next}}}, &page); err != nil {
			return nil, fmt.Errorf("list %s: %w", path[strings.LastIndexByte(path, '/')+1:], err)
		}
		all = append(all, page.Items...)
		if next = page.Metadata.Continue; next == "" {
			return all, nil
		}
	}
	return nil, fmt.Errorf("list %s: more than %d", path, maxPages*pageItems)
}

// The objects, with no more than is read.

type meta struct {
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels"`
}

type service struct {
	Metadata meta `json:"metadata"`
	Spec     struct {
		Type         string   `json:"type"`
		ClusterIP    string   `json:"clusterIP"`
		ClusterIPs   []string `json:"clusterIPs"`
		ExternalName string   `json:"externalName"`
		Internal     string   `json:"internalTrafficPolicy"`
		Ports        []struct {
			Name     string `json:"name"`
			Protocol string `json:"protocol"`
			Port     uint16 `json:"port"`
			NodePort uint16 `json:"nodePort"`
		} `json:"ports"`
	} `json:"spec"`
}

type endpointSlice struct {
	Metadata    meta   `json:"metadata"`
	AddressType string `json:"addressType"`
	Ports       []struct {
		Name     string `json:"name"`
		Protocol string `json:"protocol"`
		Port     uint16 `json:"port"`
	} `json:"ports"`
	Endpoints []struct {
		Addresses  []string `json:"addresses"`
		Conditions struct {
			Ready *bool `json:"ready"`
		} `json:"conditions"`
		Hints *struct{} `json:"hints"` // for which zones or nodes it is
	} `json:"endpoints"`
}

type listedPod struct {
	Metadata meta `json:"metadata"`
	Spec     struct {
		NodeName    string `json:"nodeName"`
		HostNetwork bool   `json:"hostNetwork"`
	} `json:"spec"`
	Status struct {
		Phase  string `json:"phase"`
		PodIPs []struct {
			IP string `json:"ip"`
		} `json:"podIPs"`
	} `json:"status"`
}

// servicesOf leaves out Services that have an address, and none of IPv4.
func servicesOf(list []service, cluster string) []path.Service {
	all := []path.Service{}
	for i := range list {
		o := &list[i]
		s := path.Service{Cluster: cluster, Namespace: o.Metadata.Namespace, Name: o.Metadata.Name, Ports: []path.ServicePort{}}
		addresses := append([]string{o.Spec.ClusterIP}, o.Spec.ClusterIPs...)
		s.Addr = firstIPv4(addresses)
		s.Partial = o.Spec.Internal == "Local"
		switch {
		case o.Spec.Type == "ExternalName":
			s.Addr, s.External = netip.Addr{}, o.Spec.ExternalName
		case !s.Addr.IsValid() && !slices.Contains(addresses, "None"): // IPv6 alone
			continue
		}
		for _, p := range o.Spec.Ports {
			s.Ports = append(s.Ports, path.ServicePort{Name: p.Name, Proto: proto(p.Protocol), Port: p.Port, NodePort: p.NodePort})
		}
		s.Backends = path.Known([]path.Backend{})
		all = append(all, s)
	}
	return all
}

// proto is a protocol in our words; TCP is Kubernetes' default.
func proto(s string) path.Proto { return path.Proto(strings.ToLower(cmp.Or(s, "TCP"))) }

func firstIPv4(texts []string) netip.Addr {
	for _, s := range texts {
		if a, err := netip.ParseAddr(s); err == nil && a.Is4() {
			return a
		}
	}
	return netip.Addr{}
}

// serviceLabel is how an EndpointSlice names its Service ("EndpointSlices",
// Kubernetes documentation).
const serviceLabel = "kubernetes.io/service-name"

// addBackends gives each Service those that its slices name. One may be in two
// slices for a moment.
func addBackends(services []path.Service, list []endpointSlice, err error) {
	at := map[string]*path.Service{}
	for i := range services {
		at[services[i].ID()] = &services[i]
		if err != nil {
			services[i].Backends = path.Unknown[[]path.Backend](err.Error())
		}
	}
	for i := range list {
		o := &list[i]
		s := at[o.Metadata.Namespace+"/"+o.Metadata.Labels[serviceLabel]]
		if s == nil || o.AddressType != "IPv4" {
			continue
		}
		for _, e := range o.Endpoints {
			a := firstIPv4(e.Addresses)
			if !a.IsValid() {
				continue
			}
			s.Partial = s.Partial || e.Hints != nil
			for _, p := range o.Ports {
				// Not said is ready, as the API has it.
				b := path.Backend{Addr: a, Port: p.Port, Proto: proto(p.Protocol), PortName: p.Name, Ready: e.Conditions.Ready == nil || *e.Conditions.Ready}
				if !slices.Contains(s.Backends.Value, b) {
					s.Backends.Value = append(s.Backends.Value, b)
				}
			}
		}
	}
	for i := range services {
		slices.SortFunc(services[i].Backends.Value, func(a, b path.Backend) int {
			return strings.Compare(fmt.Sprint(a.PortName, a.Addr, a.Port), fmt.Sprint(b.PortName, b.Addr, b.Port))
		})
	}
}

// podsOf leaves out pods that have no address of IPv4, or none any more: those that
// are over.
func podsOf(list []listedPod, cluster string) []path.ListedPod {
	all := []path.ListedPod{}
	for i := range list {
		o := &list[i]
		var texts []string
		for _, ip := range o.Status.PodIPs {
			texts = append(texts, ip.IP)
		}
		a := firstIPv4(texts)
		if !a.IsValid() || o.Status.Phase == "Succeeded" || o.Status.Phase == "Failed" {
			continue
		}
		all = append(all, path.ListedPod{Cluster: cluster, Namespace: o.Metadata.Namespace, Name: o.Metadata.Name, Addr: a,
			Node: o.Spec.NodeName, HostNetwork: o.Spec.HostNetwork})
	}
	return all
}
