package cniapi

import (
	"errors"
	"strconv"
)

// Error codes that the CNI specification defines (SPEC.md 1.1.0, section 5,
// "Error"), and from 100 on our own.
const (
	CodeIncompatibleVersion uint = 1
	CodeUnsupportedField    uint = 2
	CodeUnknownContainer    uint = 3
	CodeInvalidEnvironment  uint = 4
	CodeIO                  uint = 5
	CodeDecode              uint = 6
	CodeInvalidConfig       uint = 7
	CodeTryAgainLater       uint = 11
	CodeUnavailable         uint = 50
	CodeLimited             uint = 51

	CodeNoAddress      uint = 100 // no free address, and none is on its way
	CodeInterfaceTaken uint = 101 // the pod has an interface of that name already
	CodeRefused        uint = 102 // the agent does not talk to this caller
	CodeProtocol       uint = 103 // plugin and agent do not speak the same protocol version
	CodeInternal       uint = 999 // a defect of ours; the number is the CNI library's
)

// Error is a CNI error result. Msg says in one line what is wrong and where,
// Details what to do about it or what lies beneath.
type Error struct {
	Code    uint   `json:"code"`
	Msg     string `json:"msg"`
	Details string `json:"details,omitempty"`
}

func (e *Error) Error() string {
	text := "cni error " + strconv.FormatUint(uint64(e.Code), 10) + ": " + e.Msg
	if e.Details != "" {
		text += " (" + e.Details + ")"
	}
	return text
}

// AppendJSON appends the error as a plugin prints it, with the version of the
// specification that the request asked for.
func (e *Error) AppendJSON(dst []byte, cniVersion string) []byte {
	obj := appendMember([]byte{'{'}, "cniVersion", cniVersion)
	obj = strconv.AppendUint(appendKey(obj, "code"), uint64(e.Code), 10)
	obj = appendMember(obj, "msg", e.Msg)
	if e.Details != "" {
		obj = appendMember(obj, "details", e.Details)
	}
	return append(append(dst, obj...), '}')
}

// Why an exchange brought no answer. A caller that gets one of these does not
// know whether the agent acted.
var (
	ErrAway     = errors.New("the agent does not answer on its socket")
	ErrNoAnswer = errors.New("the agent took the request and gave no answer")
	ErrGarbage  = errors.New("the answer is not of this protocol")
	ErrTooLarge = errors.New("the request is larger than a frame may be")
)

// wrapped is what fmt.Errorf("context: %w") would make, without fmt.
type wrapped struct {
	context string
	err     error
}

func wrap(context string, err error) error { return &wrapped{context, err} }
func (w *wrapped) Error() string           { return w.context + ": " + w.err.Error() }
func (w *wrapped) Unwrap() error           { return w.err }
