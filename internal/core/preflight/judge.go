package preflight

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fairway-cni/fairway/internal/core/path"
)

// OurList is the network configuration that the agent writes, OurPlugin its
// program.
const (
	OurList   = "10-fairway.conflist"
	OurPlugin = "fairway-cni"
)

// judge gathers lines.
type judge struct {
	Facts
	installed bool
	lines     []Line
}

// Judge says of each fact whether it is as it should be.
func Judge(f Facts) Report {
	j := &judge{Facts: f}
	j.installed = f.Agent.Known || slices.ContainsFunc(f.Lists.Value, func(l List) bool { return l.File == OurList })
	r := Report{Installed: j.installed}
	if m := f.Metadata; m.Known {
		r.Node = fmt.Sprintf("%s (%s)", m.Value.InstanceID, m.Value.InstanceType)
	}
	j.node()
	j.cloud()
	j.agent()
	r.Lines = j.lines
	return r
}

func (j *judge) say(check string, result Result, seen, do string) {
	j.lines = append(j.lines, Line{Check: check, Result: result, Seen: seen, Do: do})
}

func (j *judge) ok(check, format string, args ...any) {
	j.say(check, OK, fmt.Sprintf(format, args...), "")
}

// skip says that there is nothing to look at here.
func (j *judge) skip(check, why string) { j.say(check, Skipped, why, "") }

// blind says that it could not be looked at.
func (j *judge) blind(check, why, do string) {
	j.lines = append(j.lines, Line{Check: check, Result: Skipped, Seen: cmp.Or(why, "nobody has looked"), Do: do, Blind: true})
}

// known reports whether a part is; else it says so.
func known[T any](j *judge, check string, p path.Part[T]) bool {
	if !p.Known {
		j.blind(check, p.Why, "")
	}
	return p.Known
}

// join lists a few of the texts.
func join(texts []string) string {
	const most = 4
	if len(texts) <= most {
		return strings.Join(texts, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(texts[:most], ", "), len(texts)-most)
}

// count is a number of things.
func count(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
