package oci

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func program(t *testing.T, name, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// entries reads a tar archive, and refuses what would differ on another machine.
func entries(t *testing.T, archive []byte) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.IsZero() && !h.ModTime.Equal(time.Unix(0, 0)) || h.Uid != 0 || h.Gid != 0 || h.Uname != "" {
			t.Errorf("%s: time %s, owner %d:%d %q: want none", h.Name, h.ModTime, h.Uid, h.Gid, h.Uname)
		}
		if all[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// TestImage follows the digests from the index to the programs, as a runtime does.
func TestImage(t *testing.T) {
	i := Image{Name: "example.test/a:1", Arch: "arm64", Args: []string{"run"}, Labels: map[string]string{"k": "v"},
		Programs: []string{program(t, "first", "one"), program(t, "second", "two")}}
	var archive bytes.Buffer
	digest, err := i.Write(&archive)
	if err != nil {
		t.Fatal(err)
	}
	all := entries(t, archive.Bytes())
	follow := func(digest string, into any) []byte {
		t.Helper()
		blob := all["blobs/sha256/"+digest[len("sha256:"):]]
		if got := fmt.Sprintf("sha256:%x", sha256.Sum256(blob)); got != digest {
			t.Fatalf("the blob of %s has digest %s", digest, got)
		}
		if into != nil {
			if err := json.Unmarshal(blob, into); err != nil {
				t.Fatal(err)
			}
		}
		return blob
	}
	var index struct{ Manifests []descriptor }
	if err := json.Unmarshal(all["index.json"], &index); err != nil {
		t.Fatal(err)
	}
	if len(index.Manifests) != 1 || index.Manifests[0].Digest != digest ||
		index.Manifests[0].Annotations[nameAnnotation] != i.Name || index.Manifests[0].Platform.Architecture != "arm64" {
		t.Fatalf("index %+v, want %s of %s", index, i.Name, digest)
	}
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	follow(digest, &manifest)
	var config struct {
		Architecture, OS string
		Config           struct {
			Entrypoint, Cmd []string
			Labels          map[string]string
		}
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	follow(manifest.Config.Digest, &config)
	if config.Architecture != "arm64" || config.OS != "linux" || !slices.Equal(config.Config.Entrypoint, []string{"/first"}) ||
		!slices.Equal(config.Config.Cmd, []string{"run"}) || config.Config.Labels["k"] != "v" || config.RootFS.DiffIDs[0] != manifest.Layers[0].Digest {
		t.Errorf("configuration %+v", config)
	}
	files := entries(t, follow(manifest.Layers[0].Digest, nil))
	if len(files) != 3 || string(files["first"]) != "one" || string(files["second"]) != "two" {
		t.Errorf("files %q, want first, second and tmp/", files)
	}
}

// TestReproducible: the same programs, made at another time and elsewhere, are the
// same image, and another program is another one.
func TestReproducible(t *testing.T) {
	write := func(text string, mode fs.FileMode, made time.Time) ([]byte, string) {
		p := program(t, "agent", text)
		if err := errors.Join(os.Chmod(p, mode), os.Chtimes(p, made, made)); err != nil {
			t.Fatal(err)
		}
		archive := filepath.Join(t.TempDir(), "image.tar")
		digest, err := Image{Name: "example.test/a:1", Arch: "amd64", Programs: []string{p}}.WriteFile(archive)
		if err != nil {
			t.Fatal(err)
		}
		bytes, err := os.ReadFile(archive)
		if err != nil {
			t.Fatal(err)
		}
		return bytes, digest
	}
	first, digest := write("text", 0o755, time.Unix(1, 0))
	again, same := write("text", 0o700, time.Unix(1e9, 5))
	if !bytes.Equal(first, again) || digest != same {
		t.Errorf("two images of one program differ: %s and %s", digest, same)
	}
	if _, other := write("texts", 0o755, time.Unix(1, 0)); other == digest {
		t.Errorf("images of two programs have one digest, %s", digest)
	}
}

func TestErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := (Image{Name: "example.test/a:1"}).WriteFile(filepath.Join(dir, "a.tar")); !errors.Is(err, errEmpty) {
		t.Errorf("an image without programs: %v, want %v", err, errEmpty)
	}
	if _, err := (Image{Name: "example.test/a:1", Programs: []string{dir + "/none"}}).WriteFile(filepath.Join(dir, "a.tar")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an image of a program that is missing: %v, want %v", err, fs.ErrNotExist)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%v is left behind by an image that failed", left)
	}
}
