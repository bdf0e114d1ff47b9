package render

import (
	"fmt"
	"strings"

	"github.com/fairway-cni/fairway/internal/core/path"
)

// Diff lists the hops that only one of two answers has: "-" the first, "+" the
// second, in the order of the way. same says that there is nothing to list.
func Diff(a, b *path.Answer) (text string, same bool) {
	left, right := marks(a), marks(b)
	common := longest(left, right)
	var out strings.Builder
	same = a.Verdict == b.Verdict
	if !same {
		fmt.Fprintf(&out, "-%s\n+%s\n", Sentence(a), Sentence(b))
	}
	i, j := 0, 0
	for _, c := range append(common, [2]int{len(left), len(right)}) {
		for ; i < c[0]; i++ {
			same = false
			out.WriteString("-" + left[i] + "\n")
		}
		for ; j < c[1]; j++ {
			same = false
			out.WriteString("+" + right[j] + "\n")
		}
		i, j = c[0]+1, c[1]+1
	}
	if same {
		return "the same way: " + Sentence(a) + "\n", true
	}
	return out.String(), false
}

func marks(a *path.Answer) []string {
	var out []string
	for i := range a.Hops {
		h := &a.Hops[i]
		way, result := ">", h.Result
		if h.Reply {
			way = "<"
		}
		if h.Verdict != path.Pass {
			result = strings.ToUpper(string(h.Verdict)) + " " + string(h.Code)
		}
		out = append(out, fmt.Sprintf(" %s %-13s%-57s%s", way, h.Where, h.Matched, result))
	}
	return out
}

// longest is the longest common subsequence, as pairs of indexes.
func longest(a, b []string) [][2]int {
	n := make([][]int, len(a)+1)
	for i := range n {
		n[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				n[i][j] = n[i+1][j+1] + 1
			} else {
				n[i][j] = max(n[i+1][j], n[i][j+1])
			}
		}
	}
	var out [][2]int
	for i, j := 0, 0; i < len(a) && j < len(b); {
		switch {
		case a[i] == b[j]:
			out = append(out, [2]int{i, j})
			i, j = i+1, j+1
		case n[i+1][j] >= n[i][j+1]:
			i++
		default:
			j++
		}
	}
	return out
}
