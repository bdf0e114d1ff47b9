package path

import (
	"bytes"
	"encoding/json"
	"reflect"
)

// Part is a part of a world that may be unknown: nobody had the right to read
// it, or nobody tried. The zero value is unknown, so nothing is ever known by
// having been forgotten.
//
// In JSON a known part is its value and an unknown one {"unknown": "why"}; a
// part that is missing or null is unknown too.
type Part[T any] struct {
	Known bool
	Value T
	Why   string // of an unknown part: why, in few words; may be empty
}

// Known is a part that is known.
func Known[T any](v T) Part[T] { return Part[T]{Known: true, Value: v} }

// Unknown is a part that is not, and why.
func Unknown[T any](why string) Part[T] { return Part[T]{Why: why} }

// IsZero leaves a part out of JSON that is unknown without a reason.
func (p Part[T]) IsZero() bool { return !p.Known && p.Why == "" }

// why says that the part called what is not known.
func (p Part[T]) unknown(what string) string {
	if p.Why == "" {
		return "not known: " + what
	}
	return "not known: " + what + " (" + p.Why + ")"
}

type unknownPart struct {
	Unknown *string `json:"unknown"`
}

// MarshalJSON writes the form that Part describes.
func (p Part[T]) MarshalJSON() ([]byte, error) {
	if !p.Known {
		return json.Marshal(unknownPart{&p.Why})
	}
	b, err := json.Marshal(p.Value)
	if err != nil || !bytes.Equal(b, []byte("null")) {
		return b, err
	}
	// An empty list that is known must not be read back as unknown.
	if reflect.TypeFor[T]().Kind() == reflect.Map {
		return []byte("{}"), nil
	}
	return []byte("[]"), nil
}

// UnmarshalJSON reads it. A field that is not one of the value's is an error.
func (p *Part[T]) UnmarshalJSON(b []byte) error {
	*p = Part[T]{}
	if bytes.Equal(bytes.TrimSpace(b), []byte("null")) {
		return nil
	}
	if len(b) > 0 && b[0] == '{' {
		var u unknownPart
		if err := strict(b, &u); err == nil && u.Unknown != nil {
			p.Why = *u.Unknown
			return nil
		}
	}
	p.Known = true
	return strict(b, &p.Value)
}

func strict(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode(into)
}
