package cri

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// theirs reads a ListPodSandboxResponse by the CRI's generated code. sure is false
// where readMessage may refuse what that takes: see errors.
func theirs(b []byte) (list []Sandbox, sure bool, err error) {
	var response runtime.ListPodSandboxResponse
	if err := proto.Unmarshal(b, &response); err != nil {
		return nil, false, err
	}
	// Groups, which proto3 does not have, stay among the unknown fields.
	sure = len(response.ProtoReflect().GetUnknown()) == 0 && len(response.Items) <= maxSandboxes
	for _, item := range response.Items {
		sure = sure && item.Id != ""
		s := Sandbox{
			ID: item.Id, PodName: item.Metadata.GetName(), PodNamespace: item.Metadata.GetNamespace(), PodUID: item.Metadata.GetUid(),
			Ready: item.State == runtime.PodSandboxState_SANDBOX_READY,
		}
		if item.CreatedAt > 0 {
			s.CreatedAt = time.Unix(0, item.CreatedAt).UTC()
		}
		list = append(list, s)
	}
	return list, sure, nil
}

// FuzzMessage: what both take means the same to both, and what they take is
// taken here, but for what the limits refuse.
func FuzzMessage(f *testing.F) {
	items, _ := many(3)
	whole, err := proto.Marshal(&runtime.ListPodSandboxResponse{Items: items})
	if err != nil {
		f.Fatal(err)
	}
	for _, b := range [][]byte{
		nil, whole, whole[:len(whole)/2],
		[]byte("\x0a\x00"),                                                      // no ID
		[]byte("\x0a\x03\x0a\x01a"),                                             // an ID and nothing else
		[]byte("\x0a\x03\x0a\x01\xff"),                                          // an ID that is not UTF-8
		[]byte("\x0a\x06\x0a\x01a\x0a\x01b"),                                    // two IDs: the last counts
		[]byte("\x0a\x0d\x0a\x01a\x12\x03\x0a\x01n\x12\x03\x12\x01u"),           // metadata in two parts
		[]byte("\x0a\x07\x0a\x01a\x08\x01\x18\x01"),                             // an ID of the wrong wire type, and a state
		[]byte("\x0a\x09\x0a\x01a\x18\x80\x80\x80\x80\x10"),                     // a state beyond 32 bits
		[]byte("\x0a\x0e\x0a\x01a\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), // a time of -1
		[]byte("\x0a\x05\x0a\x01a\x73\x74"),                                     // a group within
		[]byte("\x73\x74"), []byte("\x74"), []byte("\x0b\x0c"),                  // groups on top
		[]byte("\x10\x01\x1d\x00\x00\x00\x00\x21\x00\x00\x00\x00\x00\x00\x00\x00\x2a\x01x"), // unknown fields of each type
		[]byte("\x2a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),                              // an unknown field of 2^64-1 bytes
		[]byte("\x0a\xff\xff\xff\xff\x0f"),                                                  // a sandbox of 4 GiB
		[]byte("\x00\x00"), []byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),          // tags that are none
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := readMessage(bytes.NewReader(frame(b)))
		want, sure, wantErr := theirs(b)
		switch {
		case err != nil && sure:
			t.Fatalf("refused: %v", err)
		case err == nil && wantErr == nil:
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("-theirs +ours:\n%s", diff)
			}
		}
		for _, s := range got {
			if err != nil || s.ID == "" {
				t.Fatalf("%+v, %v", s, err)
			}
		}
	})
}

// FuzzStream is the bytes before and after a message too.
func FuzzStream(f *testing.F) {
	one := frame([]byte("\x0a\x03\x0a\x01a"))
	for _, b := range [][]byte{nil, one, one[:3], one[:7], append(one, 0), []byte("\x00\xff\xff\xff\xff"), []byte("\x01\x00\x00\x00\x00")} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := readMessage(bytes.NewReader(b))
		if errors.Is(err, errNoMessage) != (len(b) == 0) {
			t.Fatalf("%d bytes: %v", len(b), err)
		}
		if err == nil && !bytes.Equal(b, frame(b[prefixLen:])) {
			t.Fatalf("taken: %v", list)
		}
	})
}
