package cli

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// element is one of an answer of EC2's: either text or others in it.
type element struct {
	name string
	text string
	kids []*element
}

// maxNesting bounds how deep an answer may be.
const maxNesting = 64

// parseXML reads an answer, without what belongs to the protocol: the request's
// identifier.
func parseXML(answer []byte) (*element, error) {
	d := xml.NewDecoder(bytes.NewReader(answer))
	root := &element{}
	open := []*element{root}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		at := open[len(open)-1]
		switch t := token.(type) {
		case xml.StartElement:
			if len(open) > maxNesting {
				return nil, fmt.Errorf("nested deeper than %d elements", maxNesting)
			}
			e := &element{name: t.Name.Local}
			if len(open) != 2 || e.name != "requestId" {
				at.kids = append(at.kids, e)
			}
			open = append(open, e)
		case xml.EndElement:
			open = open[:len(open)-1]
		case xml.CharData:
			at.text += string(t)
		}
	}
	if len(root.kids) != 1 {
		return nil, fmt.Errorf("%d elements where one answer should be", len(root.kids))
	}
	return root.kids[0], nil
}

// list says whether all that is in the element are members of a list.
func (e *element) list() bool {
	for _, k := range e.kids {
		if k.name != "item" {
			return false
		}
	}
	return len(e.kids) > 0
}

// leaves are the values, each under its path: vpcSet.1.cidrBlock.
func (e *element) leaves() [][2]string {
	var out [][2]string
	list := e.list()
	for i, k := range e.kids {
		name := k.name
		if list {
			name = strconv.Itoa(i + 1)
		}
		if len(k.kids) == 0 {
			if text := strings.TrimSpace(k.text); text != "" {
				out = append(out, [2]string{name, text})
			}
			continue
		}
		for _, l := range k.leaves() {
			out = append(out, [2]string{name + "." + l[0], l[1]})
		}
	}
	return out
}

// json gives the answer for encoding: lists of items as arrays, values as text.
func (e *element) json() any {
	switch {
	case e.list():
		list := make([]any, 0, len(e.kids))
		for _, k := range e.kids {
			list = append(list, k.json())
		}
		return list
	case len(e.kids) > 0:
		object := make(map[string]any, len(e.kids))
		for _, k := range e.kids {
			object[k.name] = k.json()
		}
		return object
	case strings.HasSuffix(e.name, "Set"): // EC2's name for a list, here an empty one
		return []any{}
	}
	return strings.TrimSpace(e.text)
}
