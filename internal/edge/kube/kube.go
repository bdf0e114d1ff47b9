package kube

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/klog/v2"

	"github.com/fairway-cni/fairway/api/v1alpha1"
	"github.com/fairway-cni/fairway/internal/core/cluster"
	"github.com/fairway-cni/fairway/internal/core/eniconfig"
)

// What client-go would log of a watch that fails is told by Observe; its other handler
// sleeps in a lock of the whole process.
func init() { utilruntime.ErrorHandlers = nil }

// errNoAnswer is for a watch without an answer in time, or whose connection ended before it:
// the client makes an empty watch of these, in place of an error.
var errNoAnswer = errors.New("the api server does not answer")

// Config says where the API server is, and who asks.
type Config struct {
	NodeName   string // of this Node
	Kubeconfig string // file, or several as KUBECONFIG has them; empty: the service account of the pod
	Context    string // of the kubeconfig; empty: the current one
	Service    string // host:port of the API server for a pod, where there is no Kubeconfig
	Endpoint   string // URL that replaces the API server's; empty: as the others say
	Accounts   string // directory of the service account's token and ca.crt; empty: [ServiceAccount]
	UserAgent  string

	Observe   func(Request)     // may be nil; called by several goroutines at once
	Transport http.RoundTripper // nil: the network
}

// ServiceAccount is where kubelet puts a pod's token and the authority that the API
// server is known by ("Service Accounts", Kubernetes documentation).
const ServiceAccount = "/var/run/secrets/kubernetes.io/serviceaccount"

// Kind is a kind of objects that are watched.
type Kind string

// What is watched.
const (
	Pods        Kind = "pods"
	Nodes       Kind = "nodes"
	ENIConfigs  Kind = "eniconfigs"
	NodeConfigs Kind = "nodeconfigs"
)

// Request is one that is over. That of a watch is when it was answered, not when it
// has ended.
type Request struct {
	Verb string // list, watch, patch, create
	What string // plural of the kind
	Err  error
}

// Client watches, and writes. See the package comment.
type Client struct {
	cfg  Config
	rest rest.Interface

	pods        *mirror[pod, cluster.Pod]
	nodes       *mirror[node, cluster.Node]
	eniConfigs  *mirror[eniConfig, eniconfig.Config]
	nodeConfigs *mirror[v1alpha1.NodeConfig, cluster.NodeConfig]

	mu      sync.Mutex
	changed func(Kind)
}

const (
	// writeTimeout bounds a write.
	writeTimeout = 10 * time.Second
	// requests per second and at once, of all but watches: an agent that went wild
	// must not be felt by the API server.
	requestRate, requestBurst = 10, 30
)

// New makes a client, and connects to nothing. It fails where files or addresses
// cannot be what they should be.
func New(cfg Config) (*Client, error) {
	rc, err := restConfig(cfg)
	if err != nil {
		return nil, err
	}
	scheme, err := newScheme()
	if err != nil {
		return nil, fmt.Errorf("make scheme: %w", err)
	}
	rc.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	rc.ContentType, rc.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	rc.UserAgent, rc.QPS, rc.Burst = cfg.UserAgent, requestRate, requestBurst
	if cfg.Transport != nil {
		rc.Transport, rc.TLSClientConfig, rc.BearerTokenFile = cfg.Transport, rest.TLSClientConfig{}, ""
	}
	c := &Client{cfg: cfg, changed: func(Kind) {}}
	if c.rest, err = rest.UnversionedRESTClientFor(rc); err != nil {
		return nil, fmt.Errorf("make a client of the api server: %w", err)
	}
	c.pods = newMirror(podOf, func() { c.tell(Pods) })
	c.nodes = newMirror(nodeOf, func() { c.tell(Nodes) })
	c.eniConfigs = newMirror(eniConfigOf, func() { c.tell(ENIConfigs) })
	c.nodeConfigs = newMirror(nodeConfigOf, func() { c.tell(NodeConfigs) })
	return c, nil
}

// restConfig finds server and identity. Nothing is read from the environment.
func restConfig(cfg Config) (*rest.Config, error) {
	var rc *rest.Config
	if cfg.Kubeconfig != "" {
		file, err := readKubeconfig(cfg.Kubeconfig)
		if err != nil {
			return nil, err
		}
		overrides := &clientcmd.ConfigOverrides{CurrentContext: cfg.Context}
		if rc, err = clientcmd.NewDefaultClientConfig(*file, overrides).ClientConfig(); err != nil {
			return nil, fmt.Errorf("read kubeconfig %s: %w", cfg.Kubeconfig, err)
		}
	} else {
		dir := cfg.Accounts
		if dir == "" {
			dir = ServiceAccount
		}
		if _, _, err := net.SplitHostPort(cfg.Service); err != nil && cfg.Endpoint == "" {
			return nil, fmt.Errorf("address of the api server %q: %w", cfg.Service, err)
		}
		rc = &rest.Config{Host: "https://" + cfg.Service, BearerTokenFile: filepath.Join(dir, "token"),
			TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(dir, "ca.crt")}}
		if cfg.Transport == nil {
			for _, f := range []string{rc.BearerTokenFile, rc.CAFile} {
				if _, err := os.Stat(f); err != nil {
					return nil, fmt.Errorf("look for the pod's service account: %w", err)
				}
			}
		}
	}
	if cfg.Endpoint != "" {
		u, err := url.Parse(cfg.Endpoint)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return nil, fmt.Errorf("cluster endpoint %q: must be a URL, as in https://10.0.0.10:6443", cfg.Endpoint)
		}
		rc.Host = cfg.Endpoint
	}
	return rc, nil
}

// readKubeconfig reads one file, or joins several as kubectl does, which leaves out
// those that are not there.
func readKubeconfig(names string) (*clientcmdapi.Config, error) {
	if files := filepath.SplitList(names); len(files) > 1 {
		file, err := (&clientcmd.ClientConfigLoadingRules{Precedence: files, WarnIfAllMissing: true}).Load()
		if err != nil {
			return nil, fmt.Errorf("read kubeconfig: %w", err)
		}
		return file, nil
	}
	file, err := clientcmd.LoadFromFile(names)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	if err := clientcmd.ResolveLocalPaths(file); err != nil {
		return nil, fmt.Errorf("read kubeconfig %s: %w", names, err)
	}
	return file, nil
}

// Run watches until ctx ends. It calls changed after what it knows of a kind has
// changed, from several goroutines at once; that must return soon.
func (c *Client) Run(ctx context.Context, changed func(Kind)) {
	c.mu.Lock()
	c.changed = changed
	c.mu.Unlock()
	ctx = klog.NewContext(ctx, logr.Discard()) // errors are told by Observe
	var watches sync.WaitGroup
	defer watches.Wait()
	own := fields.OneTermEqualSelector("metadata.name", c.cfg.NodeName).String()
	bound := fields.OneTermEqualSelector("spec.nodeName", c.cfg.NodeName).String()
	watches.Go(func() { follow(ctx, c, source{Nodes, coreVersion, own}, c.nodes, &list[node]{}) })
	watches.Go(func() { follow(ctx, c, source{Pods, coreVersion, bound}, c.pods, &list[pod]{}) })
	watches.Go(func() {
		follow(ctx, c, source{NodeConfigs, v1alpha1.GroupVersion, ""}, c.nodeConfigs, &v1alpha1.NodeConfigList{})
	})
	watches.Go(func() { follow(ctx, c, source{ENIConfigs, eniConfigVersion, ""}, c.eniConfigs, &list[eniConfig]{}) })
}

func (c *Client) tell(k Kind) {
	c.mu.Lock()
	changed := c.changed
	c.mu.Unlock()
	changed(k)
}

// source is what is watched.
type source struct {
	kind  Kind
	of    schema.GroupVersion
	field string // field selector
}

// follow keeps a mirror as the API server has the kind, until ctx ends. Whole lists
// are decoded into a copy of empty.
func follow[W, T any](ctx context.Context, c *Client, s source, m *mirror[W, T], empty runtime.Object) {
	path := prefix(s.of) + "/" + string(s.kind)
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.FieldSelector = s.field
			into := empty.DeepCopyObject()
			err := c.rest.Get().AbsPath(path).VersionedParams(&options, metav1.ParameterCodec).Do(ctx).Into(into)
			if apierrors.IsNotFound(err) {
				m.absent()
			}
			c.observe("list", string(s.kind), err)
			return into, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.Watch, options.FieldSelector = true, s.field
			// The reflector asks again, and more seldom; the client would do so ten times
			// before anybody hears of it.
			w, err := c.rest.Get().AbsPath(path).VersionedParams(&options, metav1.ParameterCodec).MaxRetries(0).Watch(ctx)
			if err == nil && reflect.TypeOf(w) == reflect.TypeOf(watch.NewEmptyWatch()) {
				c.observe("watch", string(s.kind), errNoAnswer)
				return w, nil
			}
			// That a server does not know the stream of initial events is no failure: a
			// list comes next, as after any error but those after which the reflector
			// asks for the stream again.
			if options.SendInitialEvents == nil || err == nil || utilnet.IsConnectionRefused(err) || apierrors.IsTooManyRequests(err) {
				c.observe("watch", string(s.kind), err)
			}
			return w, err
		},
	}
	var expected any = new(W)
	cache.NewReflectorWithOptions(lw, expected, m, cache.ReflectorOptions{Name: string(s.kind), TypeDescription: string(s.kind)}).RunWithContext(ctx)
}

// prefix is where the kinds of a version are.
func prefix(v schema.GroupVersion) string {
	if v.Group == "" {
		return "/api/" + v.Version
	}
	return "/apis/" + v.Group + "/" + v.Version
}

func (c *Client) observe(verb, what string, err error) {
	if c.cfg.Observe != nil && !errors.Is(err, context.Canceled) {
		c.cfg.Observe(Request{verb, what, err})
	}
}

// Pods is the pods that are bound to the node, as seen last, and whether they were
// ever seen.
func (c *Client) Pods() ([]cluster.Pod, bool) {
	list, _, synced := c.pods.all()
	return list, synced
}

// Node is this Node as seen last, and whether it is there.
func (c *Client) Node() (cluster.Node, bool) {
	list, _, _ := c.nodes.all()
	if len(list) == 0 {
		return cluster.Node{}, false
	}
	return list[0], true
}

// ENIConfigs is those that can be used, what is wrong with the others, and whether
// they were ever seen.
func (c *Client) ENIConfigs() ([]eniconfig.Config, []error, bool) { return c.eniConfigs.all() }

// NodeConfigs is all of them, and whether they were ever seen.
func (c *Client) NodeConfigs() ([]cluster.NodeConfig, bool) {
	list, _, synced := c.nodeConfigs.all()
	return list, synced
}
