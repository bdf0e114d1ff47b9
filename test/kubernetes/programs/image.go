package programs

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
)

// image is an image of one static program, which is its only file.
type image struct {
	name    string // as containerd is to know it
	program string
	args    []string // where a container brings none
}

// descriptor is a piece of an image. Source: "OCI Content Descriptors", OCI Image
// Format Specification.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

const (
	layerType    = "application/vnd.oci.image.layer.v1.tar"
	configType   = "application/vnd.oci.image.config.v1+json"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	indexType    = "application/vnd.oci.image.index.v1+json"

	// nameAnnotation is by what containerd names an image that it imports.
	nameAnnotation = "io.containerd.image.name"
)

// write makes an archive of an OCI image layout, unless there is one that is newer
// than its program. The same program gives the same bytes.
func (i image) write(program, archive string) error {
	from, err := os.Stat(program)
	if err != nil {
		return err
	}
	if old, err := os.Stat(archive); err == nil && !old.ModTime().Before(from.ModTime()) {
		return nil
	}
	layer, err := os.CreateTemp("", "fairway-layer-")
	if err != nil {
		return err
	}
	defer os.Remove(layer.Name())
	defer layer.Close()
	if err := i.writeLayer(layer, program, from.Size()); err != nil {
		return err
	}
	out, err := os.CreateTemp(filepath.Dir(archive), ".image-")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	err = i.writeLayout(out, layer)
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("write image %s: %w", i.name, err)
	}
	return os.Rename(out.Name(), archive)
}

// writeLayer writes the root file system: the program, and a /tmp.
func (i image) writeLayer(to io.Writer, program string, size int64) error {
	f, err := os.Open(program)
	if err != nil {
		return err
	}
	defer f.Close()
	w := tar.NewWriter(to)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}); err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: i.program, Mode: 0o755, Size: size}); err != nil {
		return err
	}
	if _, err := io.Copy(w, f); err != nil {
		return err
	}
	return w.Close()
}

// layout writes blobs into an archive and gives their descriptors.
type layout struct{ *tar.Writer }

func (i image) writeLayout(to io.Writer, layer *os.File) error {
	l := layout{tar.NewWriter(to)}
	if err := l.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	root, err := l.blob(layerType, layer)
	if err != nil {
		return err
	}
	config, err := l.object(configType, map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": []string{"/" + i.program}, "Cmd": i.args, "Env": []string{"PATH=/"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{root.Digest}},
	})
	if err != nil {
		return err
	}
	manifest, err := l.object(manifestType, map[string]any{
		"schemaVersion": 2, "mediaType": manifestType, "config": config, "layers": []descriptor{root},
	})
	if err != nil {
		return err
	}
	manifest.Annotations = map[string]string{nameAnnotation: i.name}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": indexType, "manifests": []descriptor{manifest}})
	if err != nil {
		return err
	}
	if err := l.file("index.json", index); err != nil {
		return err
	}
	return l.Close()
}

func (l layout) file(name string, text []byte) error {
	if err := l.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
		return err
	}
	_, err := l.Write(text)
	return err
}

func (l layout) object(mediaType string, v any) (descriptor, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return descriptor{}, err
	}
	sum := sha256.Sum256(text)
	return descriptor{MediaType: mediaType, Digest: fmt.Sprintf("sha256:%x", sum), Size: int64(len(text))},
		l.file(fmt.Sprintf("blobs/sha256/%x", sum), text)
}

func (l layout) blob(mediaType string, f *os.File) (descriptor, error) {
	sum := sha256.New()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return descriptor{}, err
	}
	size, err := io.Copy(sum, f)
	if err != nil {
		return descriptor{}, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return descriptor{}, err
	}
	digest := fmt.Sprintf("%x", sum.Sum(nil))
	if err := l.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "blobs/sha256/" + digest, Mode: 0o644, Size: size}); err != nil {
		return descriptor{}, err
	}
	_, err = io.Copy(l, f)
	return descriptor{MediaType: mediaType, Digest: "sha256:" + digest, Size: size}, err
}
