// Package e2e tests Fairway in a cluster: a real Kubernetes in the lab, used through
// the programs that a user has, fairway-lab and kubectl.
//
// One lab serves a whole test, whose subtests go on from each other, because its
// start takes most of a quarter of a minute. Addresses, seen sources and answers are
// compared, never the words of a table. There is no code here but tests; they need
// root.
//
// The tests have the build tag e2e, as they build all of Kubernetes: `make e2e` runs
// them.
package e2e
