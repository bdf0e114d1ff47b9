package main

import (
	"strings"
	"testing"
)

const head = "instance_type,eni_limit_default_card,ipv4_per_eni,default_network_card_index,network_card_count,network_card_index,network_card_max_interfaces,hypervisor,bare_metal\n"

func TestRun(t *testing.T) {
	in := head +
		"b.large,3,10,0,1,0,3,nitro,false\n" +
		"c.big,2,50,0,3,2,4,nitro,false\n" +
		"c.big,2,50,0,3,0,2,nitro,false\n" +
		"c.big,2,50,0,3,1,2,nitro,false\n" +
		"a.large,3,10,0,1,0,3,nitro,false\n" +
		"m.metal,15,50,0,1,0,15,unknown,true\n"
	want := header +
		"3 10 0 3 nitro virtual a.large b.large\n" +
		"15 50 0 15 unknown metal m.metal\n" +
		"2 50 0 2*2,4 nitro virtual c.big\n"
	var out strings.Builder
	if err := run(strings.NewReader(in), &out); err != nil {
		t.Fatal(err)
	}
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestRunRejects(t *testing.T) {
	for name, tt := range map[string]struct{ in, want string }{
		"empty":           {"", "read header"},
		"missing column":  {"instance_type,hypervisor\n", `no column "eni_limit_default_card"`},
		"no count":        {head + "a.large,x,10,0,1,0,3,nitro,false\n", `line 2: column eni_limit_default_card: "x"`},
		"no name":         {head + ",3,10,0,1,0,3,nitro,false\n", "column instance_type"},
		"rows differ":     {head + "a,3,10,0,2,0,3,nitro,false\na,3,11,0,2,1,3,nitro,false\n", "line 3: instance type a: rows differ"},
		"card twice":      {head + "a,3,10,0,2,0,3,nitro,false\na,3,10,0,2,0,3,nitro,false\n", "card 0 twice"},
		"card missing":    {head + "a,3,10,0,2,0,3,nitro,false\n", "1 cards listed, 2 said"},
		"default differs": {head + "a,3,10,0,1,0,4,nitro,false\n", "default card 0"},
		"short row":       {head + "a,3\n", "read row"},
	} {
		t.Run(name, func(t *testing.T) {
			err := run(strings.NewReader(tt.in), &strings.Builder{})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}
