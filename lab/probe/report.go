package probe

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// letters are the cells of the matrix, in the order of the legend.
var letters = []struct {
	kind   Kind
	letter byte
}{
	{OK, '.'}, {Timeout, 'T'}, {Refused, 'R'}, {Unreachable, 'U'}, {WrongSource, 'S'},
	{WrongAnswer, 'A'}, {NoListener, 'L'}, {Failed, 'F'}, {NotTried, 'N'},
}

const (
	notAsked      = '-'
	maxName       = 20 // characters of an endpoint's name beside the matrix
	maxListed     = 50 // failures that are listed one by one
	defaultWidth  = 100
	narrowestRows = 10 // cells in a row, however narrow the terminal
)

// Count is how many flows ended so.
func (r Report) Count(k Kind) int {
	n := 0
	for _, res := range r.Results {
		if res.Kind == k {
			n++
		}
	}
	return n
}

// Failures are the flows that are not OK.
func (r Report) Failures() []Result {
	return slices.DeleteFunc(slices.Clone(r.Results), func(res Result) bool { return res.Kind == OK })
}

// String renders the report for 100 columns.
func (r Report) String() string { return r.Render(defaultWidth) }

// Render draws the matrix, a row for each source and a column for each target,
// then what its letters mean, the flows that failed, and the counts. The lines
// of the matrix have at most width columns; where the targets do not fit side
// by side it goes on below.
func (r Report) Render(width int) string {
	var b strings.Builder
	r.matrix(&b, width)
	r.legend(&b)
	failed := r.Failures()
	for i, f := range failed {
		if i == maxListed {
			fmt.Fprintf(&b, "  and %d more\n", len(failed)-i)
			break
		}
		from, to := r.Endpoints[f.From], r.Endpoints[f.To]
		fmt.Fprintf(&b, "  %s (%s) -> %s (%s): %s: %s\n", from.Name, from.Addr, to.Name, to.Addr, f.Kind, f.Detail)
	}
	fmt.Fprintf(&b, "flows %d/%d ok", len(r.Results)-len(failed), len(r.Results))
	if p50, most := r.rtts(); most > 0 {
		fmt.Fprintf(&b, ", round trip p50 %v, max %v", p50, most)
	}
	b.WriteString("\n")
	return b.String()
}

func (r Report) matrix(b *strings.Builder, width int) {
	var rows, columns []int // endpoints that are a source, a target
	cells := map[Pair]byte{}
	for _, res := range r.Results {
		rows, columns = append(rows, res.From), append(columns, res.To)
		// Of a pair that was asked more than once the failure is what matters.
		if c := letterOf(res.Kind); c != letterOf(OK) || cells[res.Pair] == 0 {
			cells[res.Pair] = c
		}
	}
	slices.Sort(rows)
	slices.Sort(columns)
	rows, columns = slices.Compact(rows), slices.Compact(columns)
	if len(rows) == 0 {
		return
	}
	label := r.labels()
	room := max(width-len(label(rows[0]))-1, narrowestRows)
	cell, perLine := 2, len(columns)
	if cell*len(columns) > room {
		cell, perLine = 1, room
	}
	for part := range slices.Chunk(columns, perLine) {
		header(b, part, cell, label(-1))
		for _, row := range rows {
			line := []byte(label(row) + " ")
			for _, col := range part {
				c, asked := cells[Pair{row, col}]
				if !asked {
					c = notAsked
				}
				line = append(append(line, c), strings.Repeat(" ", cell-1)...)
			}
			fmt.Fprintf(b, "%s\n", strings.TrimRight(string(line), " "))
		}
	}
}

// labels gives the function that names a row, number and name padded to one
// length; a negative row is the corner above them.
func (r Report) labels() func(int) string {
	number, name := len(fmt.Sprint(len(r.Endpoints))), 0
	for _, e := range r.Endpoints {
		name = max(name, min(len(e.Name), maxName))
	}
	name = max(name, len("from \\ to")-number-1)
	return func(row int) string {
		if row < 0 {
			return fmt.Sprintf("%-*s", number+1+name, "from \\ to")
		}
		n := r.Endpoints[row].Name
		if len(n) > maxName {
			// The end of a name is what tells it from its neighbours.
			n = "~" + n[len(n)-maxName+1:]
		}
		return fmt.Sprintf("%*d %-*s", number, row+1, name, n)
	}
}

// header writes the numbers of the columns, one digit below the other. Digits
// above the last are left out where they are the same as in the column before.
func header(b *strings.Builder, columns []int, cell int, corner string) {
	top := 1
	for top*10 <= slices.Max(columns)+1 {
		top *= 10
	}
	for unit := top; unit >= 1; unit /= 10 {
		line := strings.Repeat(" ", len(corner))
		if unit == 1 {
			line = corner
		}
		line += " "
		for i, col := range columns {
			digit := " "
			if n := (col + 1) / unit; n > 0 && (i == 0 || (columns[i-1]+1)/unit != n) {
				digit = fmt.Sprint(n % 10)
			}
			line += digit + strings.Repeat(" ", cell-1)
		}
		fmt.Fprintf(b, "%s\n", strings.TrimRight(line, " "))
	}
}

// legend names the letters that were used.
func (r Report) legend(b *strings.Builder) {
	var words []string
	for _, l := range letters {
		if r.Count(l.kind) > 0 {
			words = append(words, fmt.Sprintf("%c %s", l.letter, l.kind))
		}
	}
	if len(words) > 0 {
		fmt.Fprintf(b, "%s  %c not asked\n", strings.Join(words, "  "), notAsked)
	}
}

func letterOf(k Kind) byte {
	for _, l := range letters {
		if l.kind == k {
			return l.letter
		}
	}
	return '?'
}

// rtts gives the median and the largest round trip of the flows that are ok.
func (r Report) rtts() (p50, most time.Duration) {
	var all []time.Duration
	for _, res := range r.Results {
		if res.Kind == OK {
			all = append(all, res.RTT)
		}
	}
	if len(all) == 0 {
		return 0, 0
	}
	slices.Sort(all)
	return all[len(all)/2], all[len(all)-1]
}
