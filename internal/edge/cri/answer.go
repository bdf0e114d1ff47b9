package cri

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// contentType is that of gRPC; an answer may add its codec to it.
const contentType = "application/grpc"

// prefixLen is what stands before each message: one byte that says whether it is
// compressed, and its length in four ("gRPC over HTTP2", grpc documentation).
const prefixLen = 5

const (
	// maxMessage bounds a list in bytes. It is kubelet's own limit (maxMsgSize of
	// k8s.io/cri-client) and what containerd sends at most by default, so a list
	// beyond it ends kubelet's work on this node too.
	maxMessage = 16 << 20
	// maxItem bounds one sandbox in bytes. It has its pod's labels and
	// annotations, and etcd takes requests of 1.5 MiB at most by default.
	maxItem = 2 << 20
	// maxSandboxes bounds their number: twenty times the pods that the largest
	// instance type has addresses for without prefixes. An empty item has two
	// bytes on the wire and a hundred in memory.
	maxSandboxes = 16384
)

// errNoMessage says that an answer ended before its message began, which is how
// one with an error status looks.
var errNoMessage = errors.New("answer has no message")

// readAnswer reads headers, message and trailers. A list that came without the
// status OK behind it is not returned: it may be a part.
func readAnswer(resp *http.Response) ([]Sandbox, error) {
	if t := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || !strings.HasPrefix(t, contentType) {
		return nil, fmt.Errorf("what listens there does not speak gRPC: HTTP status %d, content type %s; %s",
			resp.StatusCode, short(t), checkSocket)
	}
	// An error may come as headers alone.
	if resp.Header.Get("Grpc-Status") != "" {
		if err := statusOf(resp.Header); err != nil {
			return nil, err
		}
		return nil, errNoMessage
	}
	list, err := readMessage(resp.Body)
	if err != nil && !errors.Is(err, errNoMessage) {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if status := statusOf(resp.Trailer); status != nil {
		return nil, status
	}
	return list, err
}

// readMessage reads one gRPC message with a ListPodSandboxResponse, and the end
// of the stream after it.
func readMessage(r io.Reader) ([]Sandbox, error) {
	var prefix [prefixLen]byte
	if _, err := io.ReadFull(r, prefix[:]); errors.Is(err, io.EOF) {
		return nil, errNoMessage
	} else if err != nil {
		return nil, err
	}
	if prefix[0] != 0 {
		return nil, errors.New("message is compressed, which was not asked for")
	}
	size := binary.BigEndian.Uint32(prefix[1:])
	if size > maxMessage {
		return nil, fmt.Errorf("message has %d bytes, at most %d are read", size, maxMessage)
	}
	list, err := readList(r, int64(size))
	if err != nil {
		return nil, err
	}
	switch _, err := io.ReadFull(r, prefix[:1]); {
	case err == nil:
		return nil, errors.New("more than one message, or a longer one than announced")
	case !errors.Is(err, io.EOF):
		return nil, err
	}
	return list, nil
}

// readList reads a ListPodSandboxResponse of that many bytes, a field at a time.
func readList(r io.Reader, size int64) ([]Sandbox, error) {
	limited := &io.LimitedReader{R: r, N: size}
	in := bufio.NewReader(limited)
	var list []Sandbox
	var item []byte // of one sandbox, used again for the next
	for {
		if _, err := in.Peek(1); errors.Is(err, io.EOF) && limited.N == 0 {
			return list, nil
		}
		num, typ, err := readTag(in)
		if err != nil {
			return nil, whole(err)
		}
		if num != 1 || typ != protowire.BytesType {
			if err := skip(in, typ); err != nil {
				return nil, whole(err)
			}
			continue
		}
		if item, err = readBytes(in, item[:0]); err != nil {
			return nil, whole(err)
		}
		s, err := parseSandbox(item)
		if err != nil {
			return nil, fmt.Errorf("sandbox %d of the list: %w", len(list)+1, err)
		}
		if len(list) == maxSandboxes {
			return nil, fmt.Errorf("more than %d sandboxes", maxSandboxes)
		}
		list = append(list, s)
	}
}

// whole makes an end within a message an error of its own: io.EOF is an end
// where one may be.
func whole(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func readTag(in *bufio.Reader) (protowire.Number, protowire.Type, error) {
	tag, err := binary.ReadUvarint(in)
	if err != nil {
		return 0, 0, err
	}
	num, typ := protowire.DecodeTag(tag)
	if num < protowire.MinValidNumber || num > protowire.MaxValidNumber {
		return 0, 0, fmt.Errorf("protobuf field number of tag %d is out of range", tag)
	}
	return num, typ, nil
}

// readBytes appends a field of the type bytes to buf.
func readBytes(in *bufio.Reader, buf []byte) ([]byte, error) {
	n, err := binary.ReadUvarint(in)
	if err != nil {
		return buf, err
	}
	if n > maxItem {
		return buf, fmt.Errorf("a sandbox has %d bytes, at most %d are read", n, maxItem)
	}
	if uint64(cap(buf)) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	_, err = io.ReadFull(in, buf)
	return buf, err
}

// skip reads over a field that this version of the CRI does not have.
func skip(in *bufio.Reader, typ protowire.Type) error {
	var n uint64
	var err error
	switch typ {
	case protowire.VarintType:
		_, err = binary.ReadUvarint(in)
	case protowire.Fixed32Type:
		n = 4
	case protowire.Fixed64Type:
		n = 8
	case protowire.BytesType:
		n, err = binary.ReadUvarint(in)
	default:
		return fmt.Errorf("protobuf wire type %d has no place in proto3", typ)
	}
	if err != nil {
		return err
	}
	if n > maxMessage {
		return io.ErrUnexpectedEOF
	}
	_, err = in.Discard(int(n))
	return err
}
