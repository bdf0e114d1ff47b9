// Package bundle keeps a world in one file that can be sent to somebody: a
// tar.gz of JSON, one member for each VPC and each node, behind a manifest that
// says the size and the SHA-256 of each.
//
//	000-manifest.json   form, what is in, what is not known
//	001-world.json      name, when
//	002-vpc.json ... 00N-node.json ...   one part each, as package path writes it
//
// What is read comes from somebody else: sizes and numbers are bounded, members'
// names are compared and never used, nothing is run, and a bundle of which
// anything is missing, changed or in excess is refused as a whole, naming the
// part. So a bundle gives the answer that its maker got, or none.
//
// [Join] makes one world of several; [Redact] takes names out of one; [Blind]
// says what is not known of one. They are pure. All functions are safe for
// concurrent use, and none changes a world that it is given.
package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/fairway-cni/fairway/internal/core/path"
)

// Form is the version of the form that this package writes and reads.
const Form = 1

// ErrBundle says that bytes are no bundle, or not a whole one. The text names
// the part.
var ErrBundle = errors.New("not a whole bundle")

// Bounds of a bundle. A world of 100 nodes with 737 pods each is 80 MiB.
const (
	maxFile     = 128 << 20 // bytes, compressed
	maxTotal    = 512 << 20 // bytes of all members
	maxParts    = 4096
	maxManifest = 4 << 20 // bytes
	maxArmored  = 2 * maxFile
)

// Manifest says what a bundle has.
type Manifest struct {
	Form     int      `json:"form"`
	Redacted bool     `json:"redacted,omitempty"`
	Parts    []Part   `json:"parts"`
	Unknown  []string `json:"unknown,omitempty"` // for people: what is not known, and why
}

// Part is one member.
type Part struct {
	Name   string `json:"name"`
	Kind   string `json:"kind"`         // world, vpc, peerings, transitGateways, node, services or pods
	Of     string `json:"of,omitempty"` // for people: which one
	Size   int64  `json:"size"`         // bytes
	SHA256 string `json:"sha256"`       // hex
}

const manifestName = "000-manifest.json"

func partName(i int, kind string) string { return fmt.Sprintf("%03d-%s.json", i, kind) }

// head is the part of kind world.
type head struct {
	Form  int    `json:"form"`
	Name  string `json:"name"`
	Taken string `json:"taken,omitempty"`
}

// piece is a part with what it holds: a value to write, or one to read into.
type piece struct {
	kind, of string
	value    any
}

// pieces takes a world apart.
func pieces(w *path.World) []piece {
	all := []piece{{"world", w.Name, head{w.Form, w.Name, w.Taken}}}
	for i := range w.VPCs {
		all = append(all, piece{"vpc", w.VPCs[i].ID, &w.VPCs[i]})
	}
	all = append(all, piece{"peerings", "", w.Peerings}, piece{"transitGateways", "", w.TransitGateways})
	for i := range w.Nodes {
		all = append(all, piece{"node", strings.Trim(w.Nodes[i].Cluster+":"+w.Nodes[i].Name, ":"), &w.Nodes[i]})
	}
	return append(all, piece{"services", "", w.Services}, piece{"pods", "", w.Pods})
}

// Write writes a world. The same world is the same bytes.
func Write(out io.Writer, w *path.World, redacted bool) (Manifest, error) {
	m := Manifest{Form: Form, Redacted: redacted, Unknown: Blind(w)}
	var bodies [][]byte
	for i, p := range pieces(w) {
		b, err := json.Marshal(p.value)
		if err != nil {
			return m, fmt.Errorf("write %s %s: %w", p.kind, p.of, err)
		}
		sum := sha256.Sum256(b)
		m.Parts = append(m.Parts, Part{partName(i+1, p.kind), p.kind, p.of, int64(len(b)), hex.EncodeToString(sum[:])})
		bodies = append(bodies, b)
	}
	if len(m.Parts) > maxParts {
		return m, fmt.Errorf("write bundle: %d parts, at most %d", len(m.Parts), maxParts)
	}
	first, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return m, fmt.Errorf("write manifest: %w", err)
	}
	zip := gzip.NewWriter(out)
	t := tar.NewWriter(zip)
	add := func(name string, b []byte) error {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(b)), Mode: 0o600, Format: tar.FormatPAX}
		if err := t.WriteHeader(h); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		if _, err := t.Write(b); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		return nil
	}
	err = add(manifestName, append(first, '\n'))
	for i, b := range bodies {
		if err == nil {
			err = add(m.Parts[i].Name, b)
		}
	}
	if err == nil {
		err = t.Close()
	}
	if err == nil {
		err = zip.Close()
	}
	return m, err
}

// IsBundle reports whether bytes begin as a bundle does, and not as JSON.
func IsBundle(b []byte) bool { return bytes.HasPrefix(b, []byte{0x1f, 0x8b}) }

func bad(part, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %w", ErrBundle, part, fmt.Errorf(format, args...))
}

// Read reads a bundle whole. The error wraps [ErrBundle].
func Read(b []byte) (*path.World, Manifest, error) {
	var m Manifest
	if len(b) > maxFile {
		return nil, m, bad("the file", "%d bytes, at most %d", len(b), maxFile)
	}
	file := bytes.NewReader(b) // a ByteReader, of which gzip takes no more than is its own
	zip, err := gzip.NewReader(file)
	if err != nil {
		return nil, m, bad("the file", "%w", err)
	}
	zip.Multistream(false)
	plain := &io.LimitedReader{R: zip, N: maxTotal + 1}
	t := tar.NewReader(plain)
	first, err := member(t, manifestName, maxManifest)
	if err != nil {
		return nil, m, err
	}
	if err := strict(first, &m); err != nil {
		return nil, m, bad(manifestName, "%w", err)
	}
	if err := m.check(); err != nil {
		return nil, m, bad(manifestName, "%w", err)
	}
	w := &path.World{}
	for _, p := range m.Parts {
		body, err := member(t, p.Name, p.Size)
		if err != nil {
			return nil, m, fmt.Errorf("%w (%s %s)", err, p.Kind, p.Of)
		}
		sum := sha256.Sum256(body)
		switch {
		case int64(len(body)) != p.Size:
			return nil, m, bad(p.Name, "%d bytes, and the manifest says %d (%s %s)", len(body), p.Size, p.Kind, p.Of)
		case hex.EncodeToString(sum[:]) != p.SHA256:
			return nil, m, bad(p.Name, "changed: its SHA-256 is not the manifest's (%s %s)", p.Kind, p.Of)
		}
		if err := put(w, p.Kind, body); err != nil {
			return nil, m, bad(p.Name, "%w (%s %s)", err, p.Kind, p.Of)
		}
	}
	if h, err := t.Next(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = fmt.Errorf("%q is not in the manifest", h.Name)
		}
		return nil, m, bad("its end", "%w", err)
	}
	// The checksum is behind the last byte.
	switch _, err := io.Copy(io.Discard, plain); {
	case err != nil:
		return nil, m, bad("its end", "cut off or damaged: %w", err)
	case plain.N == 0 || file.Len() > 0:
		return nil, m, bad("its end", "there is more behind it")
	}
	if err := w.Validate(); err != nil {
		return nil, m, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	return w, m, nil
}

// member reads the next one, which must have the name.
func member(t *tar.Reader, name string, most int64) ([]byte, error) {
	h, err := t.Next()
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, bad(name, "missing: the file is cut off")
	case err != nil:
		return nil, bad(name, "%w", err)
	case h.Name != name || h.Typeflag != tar.TypeReg:
		return nil, bad(name, "missing: %q is in its place", h.Name)
	case h.Size > most:
		return nil, bad(name, "%d bytes, at most %d", h.Size, most)
	}
	b, err := io.ReadAll(io.LimitReader(t, most+1))
	if err != nil {
		return nil, bad(name, "cut off or damaged: %w", err)
	}
	return b, nil
}

// check refuses a manifest that Write does not write.
func (m *Manifest) check() error {
	if m.Form != Form {
		return fmt.Errorf("form %d, want %d", m.Form, Form)
	}
	if len(m.Parts) > maxParts {
		return fmt.Errorf("%d parts, at most %d", len(m.Parts), maxParts)
	}
	total := int64(0)
	seen := map[string]bool{}
	for i, p := range m.Parts {
		if p.Name != partName(i+1, p.Kind) {
			return fmt.Errorf("part %d of kind %q is called %q", i+1, p.Kind, p.Name)
		}
		if once := p.Kind != "vpc" && p.Kind != "node"; once && seen[p.Kind] {
			return fmt.Errorf("part %s: there twice", p.Kind)
		}
		seen[p.Kind] = true
		if total += p.Size; p.Size < 0 || p.Size > maxTotal || total > maxTotal {
			return fmt.Errorf("part %s: %d bytes, at most %d in all", p.Name, p.Size, int64(maxTotal))
		}
	}
	for _, kind := range []string{"world", "peerings", "transitGateways", "services", "pods"} {
		if !seen[kind] {
			return fmt.Errorf("no part %s", kind)
		}
	}
	return nil
}

// put adds a part to a world.
func put(w *path.World, kind string, b []byte) error {
	switch kind {
	case "world":
		var h head
		if err := strict(b, &h); err != nil {
			return err
		}
		w.Form, w.Name, w.Taken = h.Form, h.Name, h.Taken
		return nil
	case "vpc":
		w.VPCs = append(w.VPCs, path.VPC{})
		return strict(b, &w.VPCs[len(w.VPCs)-1])
	case "node":
		w.Nodes = append(w.Nodes, path.Node{})
		return strict(b, &w.Nodes[len(w.Nodes)-1])
	case "peerings":
		return strict(b, &w.Peerings)
	case "transitGateways":
		return strict(b, &w.TransitGateways)
	case "services":
		return strict(b, &w.Services)
	case "pods":
		return strict(b, &w.Pods)
	}
	return fmt.Errorf("kind %q is none that this program knows", kind)
}

// strict reads one JSON value and nothing else.
func strict(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more behind its end")
	}
	return nil
}
