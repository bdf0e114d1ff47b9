package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-cni/fairway/api/v1alpha1"
	"github.com/fairway-cni/fairway/internal/core/cluster"
)

// FieldManager is who the API server says has written a field.
const FieldManager = "fairway-agent"

// The classes of errors that callers do something about. Others wrap what client-go
// returned.
var (
	ErrConflict = errors.New("somebody else has changed it")
	ErrAbsent   = errors.New("not there")
	ErrRefused  = errors.New("refused") // for want of rights, or by validation: waiting does not help
)

// classify wraps an error of the API server.
func classify(what string, err error) error {
	var class error
	switch {
	case err == nil:
		return nil
	case apierrors.IsConflict(err):
		class = ErrConflict
	case apierrors.IsNotFound(err):
		class = ErrAbsent
	case apierrors.IsInvalid(err), apierrors.IsForbidden(err), apierrors.IsUnauthorized(err), apierrors.IsBadRequest(err):
		class = ErrRefused
	default:
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%s: %w: %w", what, class, err)
}

// patch writes a part of an object; body is encoded as JSON.
type patch struct {
	kind  types.PatchType
	path  string
	what  string // plural
	apply bool   // server-side, over whoever has the fields now
	body  any
}

func (c *Client) patch(ctx context.Context, p patch) error {
	body, err := json.Marshal(p.body)
	if err != nil {
		return fmt.Errorf("encode a patch of %s: %w", p.path, err)
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	r := c.rest.Patch(p.kind).AbsPath(p.path).Body(body).Param("fieldManager", FieldManager)
	if p.apply {
		r = r.Param("force", "true")
	}
	err = r.Do(ctx).Error()
	c.observe("patch", p.what, err)
	return classify("patch "+p.path, err)
}

// RemoveTaint takes the taints of a key from this Node, if they are still what n says.
// Else it is an [ErrConflict] or [ErrRefused], and the Node is about to be seen anew.
func (c *Client) RemoveTaint(ctx context.Context, n cluster.Node, key string) error {
	rest, had := n.Without(key)
	if !had {
		return nil
	}
	type step struct {
		Op    string  `json:"op"`
		Path  string  `json:"path"`
		Value []taint `json:"value"`
	}
	const path = "/spec/taints"
	return c.patch(ctx, patch{kind: types.JSONPatchType, path: "/api/v1/nodes/" + n.Name, what: "nodes",
		body: []step{{"test", path, taintsOf(n.Taints)}, {"replace", path, taintsOf(rest)}}})
}

func taintsOf(list []cluster.Taint) []taint {
	out := make([]taint, 0, len(list))
	for _, t := range list {
		out = append(out, taint{Key: t.Key, Value: t.Value, Effect: t.Effect, TimeAdded: t.Added})
	}
	return out
}

// PublishENINode writes the status of this node's ENINode, and makes that where it is
// not there. Its owner is the Node, with which it goes.
func (c *Client) PublishENINode(ctx context.Context, owner cluster.Node, status v1alpha1.ENINodeStatus) error {
	type applied struct {
		metav1.TypeMeta `json:",inline"`
		Metadata        struct {
			Name   string                  `json:"name"`
			Owners []metav1.OwnerReference `json:"ownerReferences,omitempty"`
		} `json:"metadata"`
		Status *v1alpha1.ENINodeStatus `json:"status,omitempty"`
	}
	var object applied
	object.TypeMeta = metav1.TypeMeta{Kind: v1alpha1.KindENINode, APIVersion: v1alpha1.GroupVersion.String()}
	object.Metadata.Name = c.cfg.NodeName
	object.Status = &status
	path := prefix(v1alpha1.GroupVersion) + "/" + v1alpha1.PluralENINodes + "/" + c.cfg.NodeName
	write := patch{kind: types.ApplyPatchType, path: path + "/status", what: v1alpha1.PluralENINodes, apply: true, body: object}
	err := c.patch(ctx, write)
	if !errors.Is(err, ErrAbsent) {
		return err
	}
	object.Status = nil
	object.Metadata.Owners = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: owner.Name, UID: types.UID(owner.UID)}}
	if err := c.patch(ctx, patch{kind: types.ApplyPatchType, path: path, what: v1alpha1.PluralENINodes, apply: true, body: object}); err != nil {
		return err
	}
	return c.patch(ctx, write)
}

// WriteRollout says what became of a NodeConfig, if nobody has changed that since it
// was read; else it is an [ErrConflict].
func (c *Client) WriteRollout(ctx context.Context, n cluster.NodeConfig) error {
	status := v1alpha1.NodeConfigStatus{Rollout: &v1alpha1.Rollout{
		Generation: n.Rollout.Generation, Node: n.Rollout.Node, State: v1alpha1.RolloutState(n.Rollout.State),
		Since: metav1.NewTime(n.Rollout.Since), Message: n.Rollout.Message,
	}}
	if n.Accepted.Generation > 0 {
		status.Accepted = &v1alpha1.Accepted{Generation: n.Accepted.Generation, Options: n.Accepted.Options}
	}
	type step struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value"`
	}
	path := prefix(v1alpha1.GroupVersion) + "/" + v1alpha1.PluralNodeConfigs + "/" + n.Name
	// A merge would leave options of an earlier generation among those accepted.
	return c.patch(ctx, patch{kind: types.JSONPatchType, path: path + "/status", what: v1alpha1.PluralNodeConfigs,
		body: []step{{"replace", "/metadata/resourceVersion", n.Version}, {"add", "/status", status}}})
}

// AnnotatePod sets an annotation of a pod, or removes it where value is empty. A pod
// of the same name that is another one is left alone, with [ErrConflict].
func (c *Client) AnnotatePod(ctx context.Context, p cluster.Pod, key, value string) error {
	annotation := map[string]any{key: value}
	if value == "" {
		annotation[key] = nil
	}
	return c.patch(ctx, patch{kind: types.MergePatchType, path: "/api/v1/namespaces/" + p.Namespace + "/pods/" + p.Name, what: string(Pods),
		body: map[string]any{"metadata": map[string]any{"uid": p.UID, "annotations": annotation}}})
}

// PostEvent makes an event of the Node.
func (c *Client) PostEvent(ctx context.Context, e cluster.Event) error {
	kind := "Normal"
	if e.Warning {
		kind = "Warning"
	}
	at := metav1.NewTime(e.At)
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %s %d", e.Reason, e.Message, e.At.UnixNano())
	const namespace = "default" // of events of what has none
	body, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Event", "type": kind, "reason": e.Reason, "message": e.Message,
		"metadata":       map[string]string{"namespace": namespace, "name": fmt.Sprintf("%s.%016x", e.Node.Name, h.Sum64())},
		"involvedObject": map[string]string{"apiVersion": "v1", "kind": "Node", "name": e.Node.Name, "uid": e.Node.UID},
		"source":         map[string]string{"component": FieldManager, "host": e.Node.Name},
		"firstTimestamp": at, "lastTimestamp": at, "count": 1,
		"reportingComponent": FieldManager, "reportingInstance": e.Node.Name,
	})
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	err = c.rest.Verb(http.MethodPost).AbsPath("/api/v1/namespaces/"+namespace+"/events").Body(body).
		SetHeader("Content-Type", "application/json").Do(ctx).Error()
	c.observe("create", "events", err)
	return classify("post event "+e.Reason, err)
}
