// Package preflight judges what was seen of a node: whether Fairway can run there,
// and, where it runs already, whether all is well. Each thing that was looked at is
// a [Line]: what was seen, and what to do about it.
//
//	Facts (what cmd/fairway has read) ----> Judge ----> Report ----> text, JSON, exit status
//
// What nobody could look at is an unknown [path.Part] and becomes a skipped line,
// never a good one.
//
// The package is pure, holds no state and is safe for concurrent use.
package preflight
