// Package node names what a node's kernel holds on Fairway's behalf: links,
// addresses, routes, rules, sysctls and nftables entries, and the attachment of
// a pod that most of them exist for.
//
// Every kernel thing is an [Object]: a comparable value with a key that says
// which thing it is and a text that says what it should be. Two snapshots are
// compared by key and by ==, nothing else; that is what makes the difference
// between desired and actual a plain function (package diff).
//
// The package is pure: values only, no state, safe for concurrent use.
package node
