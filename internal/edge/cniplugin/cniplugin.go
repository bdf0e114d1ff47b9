// Package cniplugin asks the CNI plugins of others, which run after ours, what
// versions of the specification they speak.
//
// A program is run with nothing but the specification's own variable in its
// environment; how long it takes and how much it says is bounded. Nothing is kept
// between calls.
package cniplugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

const (
	// patience is how long a plugin may think. It has nothing to do but to print.
	patience = 5 * time.Second
	// maxAnswer bounds what is read, in bytes: a list of version numbers.
	maxAnswer = 64 << 10
)

// ErrSilent says that a plugin gave no list of versions.
var ErrSilent = errors.New("it names no version")

// Versions is what the plugin at the path speaks, as VERSION says ("VERSION: probe
// plugin version support", CNI specification 1.1.0), in the plugin's order.
func Versions(ctx context.Context, program string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program)
	cmd.Env = []string{"CNI_COMMAND=VERSION"}
	cmd.Stdin = strings.NewReader(`{"cniVersion":"1.0.0"}`)
	cmd.WaitDelay = time.Second // what it may have started holds the pipe
	var out bytes.Buffer
	cmd.Stdout = &bounded{&out, cancel}
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("ask plugin %s for its versions: %w", program, errors.Join(ctx.Err(), err))
	}
	var answer struct {
		Versions []string `json:"supportedVersions"`
	}
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
		return nil, fmt.Errorf("ask plugin %s for its versions: read its answer: %w", program, err)
	}
	if len(answer.Versions) == 0 {
		return nil, fmt.Errorf("ask plugin %s for its versions: %w", program, ErrSilent)
	}
	return answer.Versions, nil
}

// bounded takes no more than maxAnswer, and ends who says more.
type bounded struct {
	*bytes.Buffer
	end func()
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxAnswer {
		b.end()
		return 0, io.ErrShortBuffer
	}
	return b.Buffer.Write(p)
}
