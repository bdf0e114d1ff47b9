package picture

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairway-cni/fairway/test/upstream"
)

// browser is a Chromium with one page. Its methods fail the test.
type browser struct {
	t       *testing.T
	to      *os.File
	from    *bufio.Reader
	session string
	calls   int
}

// patience bounds one call. A browser that says nothing for so long has hung.
const patience = 2 * time.Minute

// newBrowser starts one, and ends it with the test.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	cmd, err := upstream.Chromium(t.TempDir())
	if errors.Is(err, upstream.ErrNone) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd.Args = append(cmd.Args, "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
		"--disable-background-networking", "--force-color-profile=srgb", "--remote-debugging-pipe")
	var said bytes.Buffer
	cmd.Stderr = &said
	// A group of its own: it has several processes, which end together.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET
	}
	b := &browser{t: t}
	b.pipe(cmd)
	t.Cleanup(func() {
		b.to.Close()
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		if t.Failed() && testing.Verbose() {
			t.Logf("chromium said:\n%s", said.String())
		}
	})
	var target struct {
		TargetID string `json:"targetId"`
	}
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct {
		SessionID string `json:"sessionId"`
	}
	b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	return b
}

// pipe starts the program with its ends of two pipes, which are the descriptors 3
// and 4 by agreement.
func (b *browser) pipe(cmd *exec.Cmd) {
	b.t.Helper()
	in, to, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	from, out, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{in, out}
	err = cmd.Start()
	in.Close()
	out.Close()
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { from.Close() })
	b.to, b.from = to, bufio.NewReader(deadline{from})
}

// deadline gives every read its time.
type deadline struct{ *os.File }

func (d deadline) Read(p []byte) (int, error) {
	if err := d.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	return d.File.Read(p)
}

// call asks, and waits for the answer; events are passed over. A message ends in a
// byte of zero.
func (b *browser) call(method string, params map[string]any, result any) {
	b.t.Helper()
	b.calls++
	request := map[string]any{"id": b.calls, "method": method, "params": params}
	if b.session != "" {
		request["sessionId"] = b.session
	}
	text, err := json.Marshal(request)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.to.Write(append(text, 0)); err != nil {
		b.t.Fatal(err)
	}
	for {
		text, err := b.from.ReadBytes(0)
		if err != nil {
			b.t.Fatalf("%s: %v", method, err)
		}
		var answer struct {
			ID     int             `json:"id"`
			Result json.RawMessage `json:"result"`
			Error  *struct {
				Message string `json:"message"`
			} `json:"error"`
		}
		if err := json.Unmarshal(bytes.TrimSuffix(text, []byte{0}), &answer); err != nil {
			b.t.Fatalf("%s: %v", method, err)
		}
		if answer.ID != b.calls {
			continue
		}
		if answer.Error != nil {
			b.t.Fatalf("%s: %s", method, answer.Error.Message)
		}
		if result == nil {
			return
		}
		if err := json.Unmarshal(answer.Result, result); err != nil {
			b.t.Fatalf("%s: %v", method, err)
		}
		return
	}
}

// script runs JavaScript in the page and reads its value, once a promise is kept.
func (b *browser) script(text string, value any) {
	b.t.Helper()
	var answer struct {
		Result struct {
			Value json.RawMessage `json:"value"`
		} `json:"result"`
		Exception *struct {
			Exception struct {
				Description string `json:"description"`
			} `json:"exception"`
		} `json:"exceptionDetails"`
	}
	b.call("Runtime.evaluate", map[string]any{"expression": text, "returnByValue": true, "awaitPromise": true}, &answer)
	if answer.Exception != nil {
		b.t.Fatal(answer.Exception.Exception.Description)
	}
	if value == nil {
		return
	}
	if err := json.Unmarshal(answer.Result.Value, value); err != nil {
		b.t.Fatalf("%s: %v", answer.Result.Value, err)
	}
}

// look makes the page so wide, and its reader one who wants the theme.
func (b *browser) look(width, height int, theme string) {
	b.t.Helper()
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}, nil)
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": theme}}}, nil)
}

// open shows a file, and returns when the page is of it and whole.
func (b *browser) open(file string) {
	b.t.Helper()
	var went struct {
		ErrorText string `json:"errorText"`
	}
	b.call("Page.navigate", map[string]any{"url": "file://" + file}, &went)
	if went.ErrorText != "" {
		b.t.Fatalf("open %s: %s", file, went.ErrorText)
	}
	for end := time.Now().Add(patience); ; {
		var state string
		b.script("location.pathname + ' ' + document.readyState", &state)
		if state == file+" complete" {
			return
		}
		if time.Now().After(end) {
			b.t.Fatalf("open %s: still %s", file, state)
		}
	}
}

// screenshot is the page as it is seen.
func (b *browser) screenshot() (image.Image, []byte) {
	b.t.Helper()
	var shot struct {
		Data string `json:"data"`
	}
	b.call("Page.captureScreenshot", map[string]any{"format": "png"}, &shot)
	text, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, strings.NewReader(shot.Data)))
	if err != nil {
		b.t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(text))
	if err != nil {
		b.t.Fatal(fmt.Errorf("read screenshot: %w", err))
	}
	return img, text
}
