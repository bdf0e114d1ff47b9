package kubetest

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
)

// patch carries out the three kinds of patches, as far as clients here use them. An
// apply replaces the parts that it names.
func (s *Server) patch(w http.ResponseWriter, path string, sub bool, c Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, known := s.objects[path]
	apply := strings.HasPrefix(c.Type, "application/apply-patch")
	if !known && (!apply || sub) {
		fail(w, http.StatusNotFound, "NotFound", path)
		return
	}
	o := clone(old)
	switch {
	case strings.HasPrefix(c.Type, "application/json-patch"):
		steps, _ := c.Body["patch"].([]any)
		if !edit(o, steps) {
			fail(w, http.StatusUnprocessableEntity, "Invalid", "a test of the patch failed")
			return
		}
	case apply && !known:
		o = clone(c.Body)
	case apply:
		for name, value := range c.Body {
			if name == "metadata" {
				merge(part(o, "metadata"), value.(Object))
			} else {
				o[name] = value
			}
		}
	default:
		if uid, ok := part(clone(c.Body), "metadata")["uid"]; ok && uid != part(old, "metadata")["uid"] {
			fail(w, http.StatusConflict, "Conflict", "another object of that name")
			return
		}
		merge(o, c.Body)
	}
	if version, was := part(o, "metadata")["resourceVersion"], part(old, "metadata")["resourceVersion"]; known && version != was {
		fail(w, http.StatusConflict, "Conflict", "the object has been modified")
		return
	}
	if sub {
		kept := clone(old)
		kept["status"] = o["status"]
		o = kept
	} else if status, ok := old["status"]; ok {
		o["status"] = status
	}
	s.put(path, o)
	answer(w, http.StatusOK, s.objects[path])
}

// merge is RFC 7386.
func merge(into, from Object) {
	for name, value := range from {
		inner, ok := value.(Object)
		switch {
		case value == nil:
			delete(into, name)
		case ok:
			merge(part(into, name), inner)
		default:
			into[name] = value
		}
	}
}

// edit is RFC 6902 for test, add and replace of members of objects.
func edit(o Object, steps []any) bool {
	for _, step := range steps {
		st, _ := step.(Object)
		path, _ := st["path"].(string)
		names := strings.Split(strings.TrimPrefix(path, "/"), "/")
		at := o
		for _, name := range names[:len(names)-1] {
			at = part(at, name)
		}
		last := names[len(names)-1]
		if st["op"] == "test" {
			if !same(at[last], st["value"]) {
				return false
			}
			continue
		}
		at[last] = st["value"]
	}
	return true
}

func same(a, b any) bool {
	left, err := json.Marshal(a)
	if err != nil {
		return false
	}
	right, err := json.Marshal(b)
	return err == nil && reflect.DeepEqual(left, right)
}
