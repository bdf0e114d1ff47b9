package cri

import (
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of PodSandbox and PodSandboxMetadata, and of PodSandboxState the
// value that means ready (api.proto of k8s.io/cri-api, package runtime.v1).
const (
	fieldID        = 1
	fieldMetadata  = 2
	fieldState     = 3
	fieldCreatedAt = 4

	fieldPodName      = 1
	fieldPodUID       = 2
	fieldPodNamespace = 3

	stateReady = 0
)

// parseSandbox reads a PodSandbox, as proto3 has it: what is absent has its zero
// value, a scalar that is there twice its last, a message that is there twice both
// of its parts, and what is unknown is passed over.
func parseSandbox(b []byte) (Sandbox, error) {
	var id, name, namespace, uid []byte
	state, created := int32(stateReady), int64(0)
	err := fields(b, func(num protowire.Number, typ protowire.Type, v []byte) error {
		switch {
		case num == fieldID && typ == protowire.BytesType:
			id = v
			return text(v)
		case num == fieldMetadata && typ == protowire.BytesType:
			return fields(v, func(num protowire.Number, typ protowire.Type, v []byte) error {
				if typ != protowire.BytesType {
					return nil
				}
				switch num {
				case fieldPodName:
					name = v
				case fieldPodUID:
					uid = v
				case fieldPodNamespace:
					namespace = v
				default:
					return nil
				}
				return text(v)
			})
		case num == fieldState && typ == protowire.VarintType:
			n, _ := protowire.ConsumeVarint(v)
			state = int32(n)
		case num == fieldCreatedAt && typ == protowire.VarintType:
			n, _ := protowire.ConsumeVarint(v)
			created = int64(n)
		}
		return nil
	})
	if err != nil {
		return Sandbox{}, err
	}
	if len(id) == 0 {
		return Sandbox{}, errors.New("it has no ID")
	}
	s := Sandbox{
		ID: string(id), PodName: string(name), PodNamespace: string(namespace), PodUID: string(uid),
		Ready: state == stateReady,
	}
	if created > 0 {
		s.CreatedAt = time.Unix(0, created).UTC()
	}
	return s, nil
}

// fields calls f for each field of a protobuf message. A value of the type bytes
// comes without its length.
func fields(b []byte, f func(protowire.Number, protowire.Type, []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if num > protowire.MaxValidNumber {
			return fmt.Errorf("protobuf field number %d is out of range", num)
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return protowire.ParseError(n)
		}
		v := b[:n]
		if typ == protowire.BytesType {
			v, _ = protowire.ConsumeBytes(v)
		}
		if err := f(num, typ, v); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// text refuses what proto3 does not take for a string.
func text(v []byte) error {
	if !utf8.Valid(v) {
		return fmt.Errorf("%s is not UTF-8", short(string(v)))
	}
	return nil
}
