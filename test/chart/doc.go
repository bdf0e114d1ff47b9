// Package chart renders the Helm chart of deploy/chart, as `helm template` does, and
// holds what it renders to the rest of the repository: the plain manifests are the
// chart's, every option in them is one of the agent's, every alert fires when it
// should and has a runbook.
//
// It is a module of its own, for the libraries of Helm and Prometheus. It keeps no
// state, and its functions may be used concurrently.
package chart
