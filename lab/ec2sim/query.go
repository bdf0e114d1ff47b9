package ec2sim

import (
	"encoding/base64"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Query says which resources to describe: those named, of them (or of all)
// those that every filter matches, in pages if MaxResults or NextToken is
// given.
type Query struct {
	IDs        []string
	Filters    []Filter
	MaxResults int
	NextToken  string
}

// Filter matches resources of which the named property is, or has among
// others, one of the values. In a value "*" stands for any text, "?" for any
// character and a backslash before either for itself. Source: "List and filter
// your resources", Amazon EC2 User Guide.
type Filter struct {
	Name   string
	Values []string
}

// Page is what a Query found, and the token of the rest, if any.
type Page[T any] struct {
	Items     []T
	NextToken string
}

// listing is how one kind of resource is described.
type listing[T any] struct {
	action  string
	maxPage int
	idsName string // of the parameter, for messages
	tags    func(T) map[string]string
	fields  map[string]func(*state, T) []string // filter name -> values
}

// minPage is the smallest page that EC2 gives. Source: DescribeNetworkInterfaces,
// Amazon EC2 API Reference.
const minPage = 5

// apply filters and pages items, which come in the order of position.
func (l listing[T]) apply(s *state, q Query, items iter.Seq2[uint64, T]) (Page[T], error) {
	var page Page[T]
	after, err := l.start(q)
	if err != nil {
		return page, err
	}
	match, err := l.matcher(s, q.Filters)
	if err != nil {
		return page, err
	}
	var last uint64
	for at, item := range items {
		if at <= after || !match(item) {
			continue
		}
		if q.MaxResults > 0 && len(page.Items) == q.MaxResults {
			page.NextToken = base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%s/%d", l.action, last))
			break
		}
		page.Items = append(page.Items, item)
		last = at
	}
	return page, nil
}

// start checks the paging parameters, and gives the position to go on after.
func (l listing[T]) start(q Query) (uint64, error) {
	paged := q.MaxResults != 0 || q.NextToken != ""
	switch {
	case paged && len(q.IDs) > 0:
		return 0, invalidCombination("The parameter %s cannot be used with the parameter maxResults", l.idsName)
	case q.MaxResults != 0 && q.MaxResults < minPage:
		return 0, invalidValue("Value ( %d ) for parameter maxResults is invalid. Expecting a value greater than or equal to %d.", q.MaxResults, minPage)
	case q.MaxResults > l.maxPage:
		return 0, invalidValue("Value ( %d ) for parameter maxResults is invalid. Expecting a value less than or equal to %d.", q.MaxResults, l.maxPage)
	case q.NextToken == "":
		return 0, nil
	}
	text, err := base64.RawURLEncoding.DecodeString(q.NextToken)
	number, ours := strings.CutPrefix(string(text), l.action+"/")
	after, errNumber := strconv.ParseUint(number, 10, 64)
	if err != nil || !ours || errNumber != nil {
		return 0, fail("InvalidNextToken", "The specified NextToken is not valid.")
	}
	return after, nil
}

// maxFilterValues bounds the filters of a request. Source: "List and filter
// your resources", Amazon EC2 User Guide.
const maxFilterValues = 200

func (l listing[T]) matcher(s *state, filters []Filter) (func(T) bool, error) {
	var tests []func(T) bool
	for _, f := range filters {
		if len(f.Values) == 0 {
			return nil, invalidValue("The filter '%s' has no values.", f.Name)
		}
		if len(f.Values) > maxFilterValues {
			return nil, fail("FilterLimitExceeded", "The filter '%s' has more than %d values.", f.Name, maxFilterValues)
		}
		values, err := l.values(s, f.Name)
		if err != nil {
			return nil, err
		}
		tests = append(tests, func(item T) bool {
			return slices.ContainsFunc(values(item), func(v string) bool {
				return slices.ContainsFunc(f.Values, func(pattern string) bool { return wildcard(pattern, v) })
			})
		})
	}
	return func(item T) bool {
		for _, test := range tests {
			if !test(item) {
				return false
			}
		}
		return true
	}, nil
}

// values gives how to read a filter's property of an item.
func (l listing[T]) values(s *state, name string) (func(T) []string, error) {
	if field, ok := l.fields[name]; ok {
		return func(item T) []string { return field(s, item) }, nil
	}
	if key, ok := strings.CutPrefix(name, "tag:"); ok && l.tags != nil {
		return func(item T) []string {
			if v, ok := l.tags(item)[key]; ok {
				return []string{v}
			}
			return nil
		}, nil
	}
	if name == "tag-key" && l.tags != nil {
		return func(item T) []string { return slices.Collect(maps.Keys(l.tags(item))) }, nil
	}
	return nil, invalidValue("The filter '%s' is invalid", name)
}

// wildcard matches s against a pattern of *, ? and backslash, in time
// proportional to the product of their lengths.
func wildcard(pattern, s string) bool {
	p, i := 0, 0
	star, resume := -1, 0 // the last *, and where in s to try it next
	for i < len(s) {
		literal, width := byte(0), 0
		if p < len(pattern) {
			literal, width = pattern[p], 1
			if literal == '\\' && p+1 < len(pattern) {
				literal, width = pattern[p+1], 2
			}
		}
		switch {
		case width == 1 && literal == '*':
			star, resume = p, i
			p++
		case width == 1 && literal == '?', width > 0 && literal == s[i]:
			p, i = p+width, i+1
		case star >= 0:
			resume++
			p, i = star+1, resume
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// rows yields a table's rows with their places; with ids, only those.
func rows[T any](t *table[T], ids []string) iter.Seq2[uint64, T] {
	return func(yield func(uint64, T) bool) {
		if len(ids) == 0 {
			for _, r := range t.order {
				if !yield(r.seq, r.val) {
					return
				}
			}
			return
		}
		seen := map[string]bool{}
		for _, id := range ids {
			if r := t.byID[id]; !seen[id] && !yield(r.seq, r.val) {
				return
			}
			seen[id] = true
		}
	}
}

// known refuses identifiers of which there is no resource.
func known[T any](t *table[T], k kind, ids []string) error {
	for _, id := range ids {
		if _, err := find(t, k, id); err != nil {
			return err
		}
	}
	return nil
}
