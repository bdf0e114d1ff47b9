package paste

import (
	"errors"
	"strings"
	"testing"

	"github.com/fairway-cni/fairway/internal/core/path"
)

func TestParse(t *testing.T) {
	const log = "2 123456789010 eni-1235b8ca 172.31.16.139 172.31.16.21 40641 22 6 20 4249 1418530010 1418530070 "
	for _, tt := range []struct {
		line, from, to string
		proto          path.Proto
		reply          bool
		says           string
	}{
		{log + "REJECT OK", "172.31.16.139", "172.31.16.21:22", path.TCP, false, "REJECT at eni-1235b8ca"},
		{"2026-11-21T10:00:00.000Z " + log + "ACCEPT OK", "172.31.16.139", "172.31.16.21:22", path.TCP, false, "ACCEPT"},
		{strings.Replace(log, "40641 22 6", "53 40641 17", 1) + "REJECT OK", "172.31.16.21", "172.31.16.139:53", path.UDP, true, "of the reply"},
		{strings.Replace(log, "40641 22 6", "0 0 1", 1) + "REJECT OK", "172.31.16.139", "172.31.16.21", path.ICMP, false, "icmp"},
		{"IPv4: martian source 10.11.4.91 from 10.12.7.33, on dev eth1", "10.12.7.33", "10.11.4.91", path.TCP, false, "it came by eth1"},
		{"Nov 21 10:00:00 n1 kernel: [ 12.3] IPv4: martian source 10.11.4.91 from 10.12.7.33, on dev eth1", "10.12.7.33", "10.11.4.91", path.TCP, false, "eth1"},
		{"martian destination 0.0.0.0 from 10.12.7.33, dev eth0", "10.12.7.33", "0.0.0.0", path.TCP, false, "eth0"},
	} {
		f, err := Parse(tt.line)
		if err != nil {
			t.Errorf("%q: %v", tt.line, err)
			continue
		}
		from, to := f.Ends()
		if from != tt.from || to != tt.to || f.Proto != tt.proto || f.Reply != tt.reply || !strings.Contains(f.String(), tt.says) || !IsLine(tt.line) {
			t.Errorf("%q: %s", tt.line, f)
		}
	}
	for line, says := range map[string]string{
		strings.Replace(log, " 6 ", " 50 ", 1) + "ACCEPT OK":                       "protocol \"50\"",
		"2 123456789010 eni-1235b8ca - - - - - - - 1431280876 1431280934 - NODATA": "NODATA",
		log + "ACCEPT": "13 words",
		strings.Replace(log, "172.31.16.21", "fd00::1", 1) + "ACCEPT OK": "not IPv4",
		"martian source 10.0.0.1 of 10.0.0.2":                            "other words",
		"hello there":                                                    "2 words",
		strings.Repeat("x ", maxLine):                                    "at most",
	} {
		if _, err := Parse(line); !errors.Is(err, ErrLine) || !strings.Contains(err.Error(), says) {
			t.Errorf("%.80q: %v, want %q", line, err, says)
		}
	}
	if IsLine("default/sleep") || IsLine(" 10.0.0.1 ") {
		t.Error("a name is taken for a line")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("2 123456789010 eni-1235b8ca 172.31.16.139 172.31.16.21 20641 22 6 20 4249 1418530010 1418530070 REJECT OK")
	f.Add("IPv4: martian source 10.11.4.91 from 10.12.7.33, on dev eth1")
	f.Add("martian source ")
	f.Fuzz(func(t *testing.T, line string) {
		flow, err := Parse(line)
		if err != nil {
			return
		}
		if !flow.From.Is4() || !flow.To.Is4() || flow.String() == "" {
			t.Errorf("%q is read as %+v", line, flow)
		}
	})
}
