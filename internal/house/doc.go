// Package house holds the rules of this source tree as tests: who may import
// whom, where time and the environment may be read, how long a file may grow,
// that every package and every link says what it means.
//
// It exports nothing and no program links it. A rule is a row of data with its
// reason beside it, and the reason is what a failing test prints; to change a
// rule, change the row and its reason in a commit of its own. An exception is a
// row too (allowances), and one that is no longer needed fails.
//
// Every checker is a function from a file tree or a package list to a list of
// findings, so each has a test against a small tree in memory that it must
// refuse: a rule that cannot fail is not kept.
package house
