// Package nodefile reads the files that a person writes for the agent of a node:
// its settings, and the ENIConfigs of a node that has no cluster to ask.
//
// Both are YAML, read strictly: a key that means nothing, one that is there
// twice, an alias or a tag is an error, so that a slip of the pen is told and not
// obeyed. Every error begins with file and line. Files, nesting and counts are
// bounded; what the keys of settings mean is the caller's business.
//
// Nothing is kept between calls, and nothing is written.
package nodefile
