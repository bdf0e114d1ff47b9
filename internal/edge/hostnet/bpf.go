package hostnet

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	ebpflink "github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

const (
	sizeofTcmsg   = 20         // struct tcmsg, include/uapi/linux/rtnetlink.h
	parentIngress = 0xfffffff2 // TC_H_CLSACT, TC_H_MIN_INGRESS; include/uapi/linux/pkt_sched.h
	parentEgress  = 0xfffffff3
	bpfName       = 7 // TCA_BPF_NAME, include/uapi/linux/pkt_cls.h
)

// programs adds to each device what is attached to it at tc and tcx: those of
// BPF, and other filters too, which may do as much.
func (c *conn) programs(links []link) error {
	answers, err := c.dump(unix.RTM_GETQDISC, make([]byte, sizeofTcmsg))
	if err != nil {
		return fmt.Errorf("list queueing disciplines: %w", err)
	}
	filtered := map[int32]bool{}
	for _, b := range answers {
		if len(b) < sizeofTcmsg {
			continue
		}
		for kind, v := range behind(b, sizeofTcmsg) {
			if kind == unix.TCA_KIND && (text(v) == "clsact" || text(v) == "ingress") {
				filtered[int32(u32(b[4:]))] = true
			}
		}
	}
	for i := range links {
		l := &links[i]
		if filtered[l.index] {
			if err := c.filters(l); err != nil {
				return fmt.Errorf("list filters of %s: %w", l.Name, err)
			}
		}
		if err := l.tcx(); err != nil {
			return fmt.Errorf("list programs of %s: %w", l.Name, err)
		}
	}
	return nil
}

func (c *conn) filters(l *link) error {
	for _, at := range []struct {
		way    string
		parent uint32
	}{{"ingress", parentIngress}, {"egress", parentEgress}} {
		question := make([]byte, sizeofTcmsg)
		binary.NativeEndian.PutUint32(question[4:], uint32(l.index))
		binary.NativeEndian.PutUint32(question[12:], at.parent)
		answers, err := c.dump(unix.RTM_GETTFILTER, question)
		if errors.Is(err, unix.EINVAL) && at.way == "egress" {
			continue // qdisc ingress has only that
		}
		if err != nil {
			return err
		}
		seen := map[string]bool{}
		for _, b := range answers {
			if s := parseFilter(b); s != "" && !seen[s] {
				seen[s] = true
				l.BPF = append(l.BPF, at.way+" tc "+s)
			}
		}
	}
	return nil
}

// parseFilter is the kind and, of BPF, the name of a filter; empty for the
// entry of a chain or priority alone, which has no options.
func parseFilter(b []byte) string {
	if len(b) < sizeofTcmsg {
		return ""
	}
	kind, name, is := "", "", false
	for k, v := range behind(b, sizeofTcmsg) {
		switch k {
		case unix.TCA_KIND:
			kind = text(v)
		case unix.TCA_OPTIONS:
			is = true
			for k, v := range attributes(v) {
				if k == bpfName && kind == "bpf" {
					name = " " + text(v)
				}
			}
		}
	}
	if !is {
		return ""
	}
	return kind + name
}

// tcx asks for programs that are attached without a filter. Kernels before 6.6
// have none.
func (l *link) tcx() error {
	for _, at := range []struct {
		way    string
		attach ebpf.AttachType
	}{{"ingress", ebpf.AttachTCXIngress}, {"egress", ebpf.AttachTCXEgress}} {
		r, err := ebpflink.QueryPrograms(ebpflink.QueryOptions{Target: int(l.index), Attach: at.attach})
		switch {
		case errors.Is(err, unix.EINVAL), errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.ENODEV):
			return nil
		case err != nil:
			return err
		}
		for _, p := range r.Programs {
			l.BPF = append(l.BPF, fmt.Sprintf("%s tcx %s", at.way, programName(p.ID)))
		}
	}
	return nil
}

func programName(id ebpf.ProgramID) string {
	p, err := ebpf.NewProgramFromID(id)
	if err == nil {
		defer p.Close()
		if info, err := p.Info(); err == nil && info.Name != "" {
			return info.Name
		}
	}
	return fmt.Sprintf("id %d", id)
}
