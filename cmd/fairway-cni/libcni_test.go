package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/fairway-cni/fairway/internal/edge/cniapi"
	"github.com/fairway-cni/fairway/internal/edge/cniapi/cniserver"
)

// TestLibcni is the life of a pod under the library that containerd and CRI-O
// use, in each version of the specification.
func TestLibcni(t *testing.T) {
	pod := newPod(t)
	for _, version := range cniapi.SupportedVersions() {
		t.Run(version, func(t *testing.T) {
			n := newNode(t)
			var mu sync.Mutex
			var commands []string
			n.serve(t, func(_ context.Context, c *cniserver.Call) cniserver.Reply {
				mu.Lock()
				defer mu.Unlock()
				commands = append(commands, c.Command)
				switch c.Command {
				case "ADD":
					return podResult(c)
				case "CHECK":
					if c.Prev == nil || len(c.Prev.Interfaces) != 2 || c.Prev.IPs[0].Address.String() != "10.0.1.5/32" {
						return cniserver.Reply{Err: cniserver.Internal(fmt.Errorf("prevResult is %+v", c.Prev))}
					}
				case "GC":
					if !slices.Equal(c.ValidAttachments, []cniserver.Attachment{{ContainerID: "keep", IfName: "eth0"}}) {
						return cniserver.Reply{Err: cniserver.Internal(fmt.Errorf("valid attachments are %v", c.ValidAttachments))}
					}
				}
				return cniserver.Reply{}
			})
			list, err := libcni.ConfListFromBytes(fmt.Appendf(nil, `{"cniVersion":%q,"name":"fairway","plugins":[{"type":"fairway-cni","socket":%q,"spool":%q}]}`, version, n.socket, n.spool))
			if err != nil {
				t.Fatal(err)
			}
			cni := libcni.NewCNIConfigWithCacheDir([]string{filepath.Dir(plugin)}, t.TempDir(), nil)
			rt := &libcni.RuntimeConf{ContainerID: "c", NetNS: pod, IfName: "eth0", Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAME", "p"}}}
			ctx := t.Context()

			if _, err := cni.ValidateNetworkList(ctx, list); err != nil {
				t.Fatalf("validate: %v", err)
			}
			result, err := cni.AddNetworkList(ctx, list, rt)
			if err != nil {
				t.Fatalf("add: %v", err)
			}
			got, err := types100.GetResult(result)
			if err != nil {
				t.Fatal(err)
			}
			if len(got.IPs) != 1 || got.IPs[0].Address.String() != "10.0.1.5/32" || *got.IPs[0].Interface != 1 || got.Interfaces[1].Sandbox != pod {
				t.Errorf("result %+v", got)
			}
			want := []string{"ADD"}
			if version != "0.3.1" {
				if err := cni.CheckNetworkList(ctx, list, rt); err != nil {
					t.Errorf("check: %v", err)
				}
				want = append(want, "CHECK")
			}
			if err := cni.DelNetworkList(ctx, list, rt); err != nil {
				t.Errorf("del: %v", err)
			}
			want = append(want, "DEL")
			if version == "1.1.0" {
				if err := cni.GetStatusNetworkList(ctx, list); err != nil {
					t.Errorf("status: %v", err)
				}
				if err := cni.GCNetworkList(ctx, list, &libcni.GCArgs{ValidAttachments: []types.GCAttachment{{ContainerID: "keep", IfName: "eth0"}}}); err != nil {
					t.Errorf("gc: %v", err)
				}
				want = append(want, "STATUS", "GC")
			}
			if !slices.Equal(commands, want) {
				t.Errorf("the agent got %v, want %v", commands, want)
			}
		})
	}
}

// TestLibcniError: the library reads our errors as errors with a code.
func TestLibcniError(t *testing.T) {
	pod := newPod(t)
	n := newNode(t)
	n.serve(t, func(context.Context, *cniserver.Call) cniserver.Reply {
		return cniserver.Reply{Err: cniserver.TryAgainLater("an ENI is on its way", "")}
	})
	list, err := libcni.ConfListFromBytes(fmt.Appendf(nil, `{"cniVersion":"1.0.0","name":"fairway","plugins":[%s]}`, n.config("1.0.0")))
	if err != nil {
		t.Fatal(err)
	}
	cni := libcni.NewCNIConfigWithCacheDir([]string{filepath.Dir(plugin)}, t.TempDir(), nil)
	_, err = cni.AddNetworkList(t.Context(), list, &libcni.RuntimeConf{ContainerID: "c", NetNS: pod, IfName: "eth0"})
	var e *types.Error
	if !errors.As(err, &e) || e.Code != types.ErrTryAgainLater || e.Msg != "an ENI is on its way" {
		t.Errorf("error %#v", err)
	}
}
