package cniapi

import "strconv"

// ProtocolVersion is the version of the messages between plugin and agent.
// Both refuse any other: they are installed together, and half an upgrade is an
// error to be seen, not to be guessed around.
const ProtocolVersion = 1

// A frame is a length of four bytes, big-endian, and as many bytes of JSON.
const (
	HeaderLen = 4
	MaxFrame  = 1 << 20 // bytes of JSON; a configuration has a few hundred
)

// Request is what the plugin asks of the agent. For ADD and CHECK two file
// descriptors come with its first byte (SCM_RIGHTS): the pod's network
// namespace and a NETLINK_ROUTE socket opened in it, in this order.
type Request struct {
	Command     string
	ContainerID string
	IfName      string
	NetNS       string // CNI_NETNS; the descriptor is what counts
	Args        string // CNI_ARGS
	Path        string // CNI_PATH
	Config      []byte // the network configuration as the runtime gave it: valid JSON
}

// Frame gives the request as it goes over the socket. The error is
// [ErrTooLarge].
func (r Request) Frame() ([]byte, error) {
	b := make([]byte, HeaderLen, HeaderLen+len(r.Config)+512)
	b = append(b, '{')
	b = strconv.AppendInt(appendKey(b, "version"), ProtocolVersion, 10)
	b = appendMember(b, "command", r.Command)
	b = appendMember(b, "containerID", r.ContainerID)
	b = appendMember(b, "ifName", r.IfName)
	b = appendMember(b, "netns", r.NetNS)
	b = appendMember(b, "args", r.Args)
	b = appendMember(b, "path", r.Path)
	if len(r.Config) > 0 {
		b = append(appendKey(b, "config"), r.Config...)
	}
	b = append(b, '}')
	n := len(b) - HeaderLen
	if n > MaxFrame {
		return nil, wrap(strconv.Itoa(n)+" bytes, at most "+strconv.Itoa(MaxFrame), ErrTooLarge)
	}
	PutLength(b, n)
	return b, nil
}

// PutLength writes a frame's length into its header.
func PutLength(header []byte, n int) {
	_ = header[HeaderLen-1]
	header[0], header[1], header[2], header[3] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
}

// Length reads a frame's length from its header. What is too large for a frame
// is [ErrGarbage]: it is the first sign that the other end speaks something else.
func Length(header []byte) (int, error) {
	_ = header[HeaderLen-1]
	n := uint32(header[0])<<24 | uint32(header[1])<<16 | uint32(header[2])<<8 | uint32(header[3])
	if n > MaxFrame {
		return 0, wrap("frame of "+strconv.FormatUint(uint64(n), 10)+" bytes", ErrGarbage)
	}
	return int(n), nil
}

// Reply is the agent's answer. Exactly one of Exit == 0 and Err != nil holds.
type Reply struct {
	Exit   int    // exit status of the plugin
	Result []byte // what to print on success, verbatim; empty for all but ADD
	Err    *Error
}

// parseReply reads the JSON of a reply. Errors wrap [ErrGarbage].
func parseReply(text []byte) (Reply, error) {
	var r Reply
	version := 0
	err := members(text, func(key string, value []byte) (err error) {
		switch key {
		case "version":
			version, err = intValue(value)
		case "exit":
			r.Exit, err = intValue(value)
		case "result":
			r.Result = value
		case "error":
			r.Err, err = parseError(value)
		}
		if err != nil {
			return wrap(key, err)
		}
		return nil
	})
	if err != nil {
		return Reply{}, wrap(err.Error(), ErrGarbage)
	}
	// An agent of another version says so in words, if we can read them.
	if version != ProtocolVersion && (r.Err == nil || r.Err.Code != CodeProtocol) {
		return Reply{Exit: 1, Err: &Error{CodeProtocol, "the agent speaks protocol version " + strconv.Itoa(version) +
			" and this plugin " + strconv.Itoa(ProtocolVersion), "install plugin and agent of the same release"}}, nil
	}
	if (r.Exit == 0) != (r.Err == nil) {
		return Reply{}, wrap("exit "+strconv.Itoa(r.Exit)+" does not fit its error", ErrGarbage)
	}
	return r, nil
}

func parseError(text []byte) (*Error, error) {
	e := &Error{}
	err := members(text, func(key string, value []byte) (err error) {
		switch key {
		case "code":
			var code int
			code, err = intValue(value)
			if err == nil && code < 0 {
				err = errNotInt
			}
			e.Code = uint(code)
		case "msg":
			e.Msg, err = stringValue(value)
		case "details":
			e.Details, err = stringValue(value)
		}
		return err
	})
	return e, err
}
