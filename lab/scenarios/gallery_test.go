package scenarios

import "testing"

// TestGallery runs the bugs of docs/path.md: each made with packets, explained,
// mended as the explanation says, and seen to work.
func TestGallery(t *testing.T) {
	t.Parallel()
	runScripts(t, "gallery")
}
