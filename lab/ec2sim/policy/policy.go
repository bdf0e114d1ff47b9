// Package policy is the part of IAM's policy language that rights on EC2 are
// written in: identity-based policies of version 2012-10-17, and the decision
// that they lead to.
//
//	document --Parse--> Document --+
//	                               v
//	Request (action, resource, keys) --Decide--> allowed, or what denied it
//
// # Invariants
//
// What Parse accepts is evaluated as IAM evaluates it; what it does not know it
// refuses, with the place. So no policy is read as saying more or less than it
// does. A decision depends on the documents and the request and on nothing else.
//
// What is not here: resource-based policies, boundaries, session policies and
// organisations; operators of numbers, dates and addresses; condition keys that
// no EC2 network call has ([Known]).
//
// # Concurrency
//
// All is pure. A Document does not change once it is parsed, and may be used by
// several goroutines.
//
// # Sources
//
// "IAM JSON policy elements reference", "Policy evaluation logic", "IAM policy
// elements: Variables and tags" and "Multivalued context keys", IAM User Guide.
package policy

import "strings"

// Document is one policy.
type Document struct{ statements []statement }

// statement is one of a document. It counts for a request if its action,
// resource and all of its conditions fit.
type statement struct {
	name        string // its Sid, or its place in the document
	deny        bool
	actions     []pattern
	notActions  bool // actions lists those that it is not about
	resources   []pattern
	notResource bool
	conditions  []condition
}

// Keys are the condition keys of a request. A key that has no value is there,
// and empty; one that is not in the map is absent, which is not the same. Names
// are compared without case, so they are held in lower case: see [Keys.Set].
type Keys map[string][]string

// Set gives a key its values.
func (k Keys) Set(name string, values ...string) { k[strings.ToLower(name)] = values }

// Request is one question: may this be done to this.
type Request struct {
	Action   string // "ec2:CreateTags"
	Resource string // an ARN, or "*" for an action that has no resources
	Keys     Keys
}

// Decision is the answer.
type Decision struct {
	Allowed bool
	// By is the statement that allowed or denied, by its Sid or its place;
	// empty where none said anything, which denies too.
	By string
}

// Decide answers: a statement that denies counts more than any that allows, and
// without one that allows it is no. Source: "Policy evaluation logic".
func Decide(policies []Document, r Request) Decision {
	var by Decision
	for _, d := range policies {
		for _, s := range d.statements {
			switch {
			case !s.fits(r):
			case s.deny:
				return Decision{By: s.name}
			case !by.Allowed:
				by = Decision{Allowed: true, By: s.name}
			}
		}
	}
	return by
}

func (s statement) fits(r Request) bool {
	return anyMatch(s.actions, strings.ToLower(r.Action), nil) != s.notActions &&
		anyMatch(s.resources, r.Resource, r.Keys) != s.notResource &&
		s.conditionsHold(r.Keys)
}

func (s statement) conditionsHold(keys Keys) bool {
	for _, c := range s.conditions {
		if !c.holds(keys) {
			return false
		}
	}
	return true
}

func anyMatch(patterns []pattern, text string, keys Keys) bool {
	for _, p := range patterns {
		if glyphs, ok := p.expand(keys); ok && matches(glyphs, text) {
			return true
		}
	}
	return false
}
