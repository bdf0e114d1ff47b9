package oci

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Image is an image of static programs.
type Image struct {
	Name string // as containerd is to know it: repository and tag
	Arch string // of the programs, as Go names it; GOARCH
	// Programs are the files, each to be found at the root of the image by the name
	// that it has here. The first is the one that a container runs.
	Programs []string
	Args     []string          // where a container brings none
	Labels   map[string]string // for people: "Annotations", OCI Image Format Specification
}

// descriptor is a piece of an image. Source: "OCI Content Descriptors", OCI Image
// Format Specification.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Platform    *platform         `json:"platform,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

const (
	layerType    = "application/vnd.oci.image.layer.v1.tar"
	configType   = "application/vnd.oci.image.config.v1+json"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	indexType    = "application/vnd.oci.image.index.v1+json"

	// nameAnnotation is by what containerd names an image that it imports.
	nameAnnotation = "io.containerd.image.name"
	// tagAnnotation is by what other programs find an image in a layout. Source:
	// "Pre-Defined Annotation Keys", OCI Image Format Specification.
	tagAnnotation = "org.opencontainers.image.ref.name"
)

// errEmpty says that an image would run nothing.
var errEmpty = errors.New("an image without a program")

// WriteFile makes an archive of an OCI image layout, under another name until it is
// whole. It gives the digest of the image's manifest, by which a cluster can pin it.
func (i Image) WriteFile(archive string) (digest string, err error) {
	out, err := os.CreateTemp(filepath.Dir(archive), ".image-")
	if err != nil {
		return "", err
	}
	defer os.Remove(out.Name())
	digest, err = i.Write(out)
	if err := errors.Join(err, out.Chmod(0o644), out.Close()); err != nil {
		return "", fmt.Errorf("write image %s: %w", i.Name, err)
	}
	return digest, os.Rename(out.Name(), archive)
}

// Write writes the archive, and gives the digest of the image's manifest.
func (i Image) Write(to io.Writer) (digest string, err error) {
	if len(i.Programs) == 0 {
		return "", errEmpty
	}
	layer, err := os.CreateTemp("", "fairway-layer-")
	if err != nil {
		return "", err
	}
	defer os.Remove(layer.Name())
	defer layer.Close()
	if err := i.writeLayer(layer); err != nil {
		return "", err
	}
	return i.writeLayout(to, layer)
}

// writeLayer writes the root file system: a /tmp, and the programs.
func (i Image) writeLayer(to io.Writer) error {
	w := tar.NewWriter(to)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}); err != nil {
		return err
	}
	for _, program := range i.Programs {
		if err := addProgram(w, program); err != nil {
			return fmt.Errorf("add %s: %w", program, err)
		}
	}
	return w.Close()
}

func addProgram(w *tar.Writer, program string) error {
	f, err := os.Open(program)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: filepath.Base(program), Mode: 0o755, Size: info.Size()}); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}

// layout writes blobs into an archive and gives their descriptors.
type layout struct{ *tar.Writer }

func (i Image) writeLayout(to io.Writer, layer *os.File) (digest string, err error) {
	l := layout{tar.NewWriter(to)}
	if err := l.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return "", err
	}
	root, err := l.blob(layerType, layer)
	if err != nil {
		return "", err
	}
	process := map[string]any{"Entrypoint": []string{"/" + filepath.Base(i.Programs[0])}, "Cmd": i.Args, "Env": []string{"PATH=/"}}
	if len(i.Labels) > 0 {
		process["Labels"] = i.Labels
	}
	config, err := l.object(configType, map[string]any{
		"architecture": i.Arch, "os": "linux", "config": process,
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{root.Digest}},
	})
	if err != nil {
		return "", err
	}
	manifest, err := l.object(manifestType, map[string]any{
		"schemaVersion": 2, "mediaType": manifestType, "config": config, "layers": []descriptor{root},
	})
	if err != nil {
		return "", err
	}
	manifest.Annotations = map[string]string{nameAnnotation: i.Name, tagAnnotation: i.Name}
	manifest.Platform = &platform{Architecture: i.Arch, OS: "linux"}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": indexType, "manifests": []descriptor{manifest}})
	if err != nil {
		return "", err
	}
	if err := l.file("index.json", index); err != nil {
		return "", err
	}
	return manifest.Digest, l.Close()
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
