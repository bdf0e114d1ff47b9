package upstream

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// chromiumPackage is Chromium without a window: of the source, and so the version,
// of Debian's package chromium, with a sixth of what that one depends on.
const chromiumPackage = "chromium-headless-shell"

// fonts has Chromium find fonts where the machine has none, and take the widest of
// those that are common: what has room in them has room in others.
const fonts = `<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig>
  <dir>/usr/share/fonts</dir>
  <dir>%s/usr/share/fonts</dir>
  <cachedir>%s/fontcache</cachedir>
  <alias binding="same"><family>monospace</family><prefer><family>DejaVu Sans Mono</family><family>Bitstream Vera Sans Mono</family></prefer></alias>
  <match target="pattern">
    <edit name="family" mode="append_last"><string>DejaVu Sans</string><string>Bitstream Vera Sans</string></edit>
  </match>
</fontconfig>
`

// Chromium gives Debian's Chromium, unpacked, as a command that is not started:
// its arguments are yet to be added. scratch is a directory for what it writes.
// [ErrNone]: it cannot be had.
func Chromium(scratch string) (*exec.Cmd, error) {
	root, err := unpacked(chromiumPackage)
	if err != nil {
		return nil, fmt.Errorf("get chromium: %w", err)
	}
	var libraries []string
	for _, pattern := range []string{"lib/*-linux-gnu*", "usr/lib/*-linux-gnu*", "usr/lib/*-linux-gnu*/pulseaudio"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return nil, err
		}
		libraries = append(libraries, found...)
	}
	config := filepath.Join(scratch, "fonts.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, fonts, root, scratch), 0o644); err != nil {
		return nil, err
	}
	c := exec.Command(filepath.Join(root, "usr/lib/chromium", chromiumPackage))
	c.Env = append(os.Environ(), "LD_LIBRARY_PATH="+strings.Join(libraries, ":"), "FONTCONFIG_FILE="+config,
		"HOME="+scratch, "DBUS_SESSION_BUS_ADDRESS=disabled:", "DBUS_SYSTEM_BUS_ADDRESS=disabled:")
	return c, nil
}
