package hostnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairway-cni/fairway/internal/core/node"
	"github.com/fairway-cni/fairway/internal/core/path"
)

// Bounds of what a program prints. A node with 10,000 Services has some 20 MiB
// of iptables.
const (
	programBytes = 64 << 20
	programTime  = 60 * time.Second
)

// OnlyOurs says why nftables are unknown where the kernel has Fairway's table
// alone and no nft prints it: who knows that table can complete the
// node.
const OnlyOurs = "no nft that runs is installed; the kernel has table inet " + node.TableName + " alone"

// filters reads nftables and iptables of the calling thread's namespace. What
// iptables keeps in nftables is iptables' own, and left out of nftables.
func (r root) filters(ctx context.Context) (path.Part[path.Ruleset], path.Part[path.Iptables]) {
	tables, err := nftTables()
	if err != nil {
		return path.Unknown[path.Ruleset](err.Error()), path.Unknown[path.Iptables](err.Error())
	}
	saved, why := r.iptables(ctx, tables)
	if why != "" {
		return path.Unknown[path.Ruleset](why), path.Unknown[path.Iptables](why)
	}
	ipt, err := path.ParseIptables(saved)
	ipts := path.Known(ipt)
	if err != nil {
		ipts = path.Unknown[path.Iptables](err.Error())
	}
	if len(tables) == 0 {
		return path.Known(path.Ruleset{}), ipts
	}
	// Without -n: names of states and protocols are what package path reads.
	lines, said, err := r.run(ctx, "nft", "-s", "list", "ruleset")
	switch {
	case err != nil && len(tables) == 1 && tables[0] == "inet "+node.TableName:
		return path.Unknown[path.Ruleset](OnlyOurs), ipts
	case errors.Is(err, exec.ErrNotFound):
		return path.Unknown[path.Ruleset]("nft is not installed; the kernel has tables " + strings.Join(tables, ", ")), ipts
	case err != nil:
		return path.Unknown[path.Ruleset](err.Error()), ipts
	}
	if what := path.NftLeftOut(said); what != "" && hasIptables(tables, saved) {
		why := "nft leaves out what iptables-nft wrote (" + what + "), and iptables-nft-save is not installed"
		return path.Unknown[path.Ruleset](why), path.Unknown[path.Iptables](why)
	}
	rules, err := path.ParseRuleset(withoutIptables(lines, saved))
	if err != nil {
		return path.Unknown[path.Ruleset](err.Error()), ipts
	}
	return path.Known(rules), ipts
}

// nftTables lists the tables as "FAMILY NAME"; nothing where the kernel has no
// nftables.
func nftTables() ([]string, error) {
	c, err := dial(unix.NETLINK_NETFILTER)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer c.Close()
	answers, err := c.dump(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETTABLE, make([]byte, 4))
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) { // nobody has loaded it
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list nftables: %w", err)
	}
	var all []string
	for _, b := range answers {
		for kind, v := range behind(b, 4) {
			if kind == unix.NFTA_TABLE_NAME {
				all = append(all, families[b[0]]+" "+text(v))
			}
		}
	}
	return all, nil
}

// Tables that iptables has, of either kind.
var iptablesTables = []string{"raw", "mangle", "nat", "filter", "security"}

// iptables is what iptables-save prints, of each kind that there is; why says
// why it is not known.
func (r root) iptables(ctx context.Context, tables []string) (lines []string, why string) {
	names, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Sprintf("list iptables: %v", err)
	}
	if len(bytes.TrimSpace(names)) > 0 {
		lines, err = r.save(ctx, "iptables-legacy-save")
		if err != nil {
			return nil, fmt.Sprintf("the kernel has iptables (%s): %v", strings.Join(strings.Fields(string(names)), ", "), err)
		}
	}
	if !hasIptables(tables, nil) {
		return lines, ""
	}
	more, err := r.save(ctx, "iptables-nft-save")
	if errors.Is(err, exec.ErrNotFound) {
		return lines, "" // nft may print the tables
	}
	if err != nil {
		return nil, err.Error()
	}
	return append(lines, more...), ""
}

// hasIptables reports whether there are tables of iptables-nft, for IPv4, but for
// those that saved has.
func hasIptables(tables, saved []string) bool {
	return slices.ContainsFunc(iptablesTables, func(t string) bool {
		return slices.Contains(tables, "ip "+t) && !slices.Contains(saved, "*"+t)
	})
}

// save runs the program, or iptables-save where that is the same.
func (r root) save(ctx context.Context, program string) ([]string, error) {
	if _, err := r.find(program); err == nil {
		lines, _, err := r.run(ctx, program)
		return lines, err
	}
	version, _, err := r.run(ctx, "iptables-save", "--version")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", program, err)
	}
	if nft := strings.Contains(strings.Join(version, " "), "nf_tables"); nft != (program == "iptables-nft-save") {
		return nil, fmt.Errorf("%s: %w", program, exec.ErrNotFound)
	}
	lines, _, err := r.run(ctx, "iptables-save")
	return lines, err
}

// run gives the lines that a program of the node's prints, and what it says of them on
// standard error. Its network namespace is the calling thread's.
func (r root) run(ctx context.Context, program string, args ...string) (lines []string, said string, err error) {
	ctx, cancel := context.WithTimeout(ctx, programTime)
	defer cancel()
	file, err := r.find(program)
	if err != nil {
		return nil, "", fmt.Errorf("run %s: %w", program, err)
	}
	cmd := exec.CommandContext(ctx, file, args...)
	r.enter(cmd)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, "", fmt.Errorf("run %s: %w", program, err)
	}
	b, err := io.ReadAll(io.LimitReader(out, programBytes+1))
	if len(b) > programBytes {
		err = fmt.Errorf("more than %d bytes", programBytes)
		cancel()
	}
	if werr := cmd.Wait(); err == nil {
		err = werr
	}
	if err != nil {
		return nil, "", fmt.Errorf("run %s: %w: %s", program, err, strings.TrimSpace(stderr.String()))
	}
	return strings.Split(strings.TrimRight(string(b), "\n"), "\n"), stderr.String(), nil
}

// withoutIptables leaves out of a ruleset the tables that saved has.
func withoutIptables(ruleset, saved []string) []string {
	var out []string
	skip := false
	for _, line := range ruleset {
		if f := strings.Fields(line); len(f) == 4 && f[0] == "table" && line[0] == 't' {
			skip = f[1] == "ip" && slices.Contains(saved, "*"+f[2])
		}
		if !skip && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
		if line == "}" {
			skip = false
		}
	}
	return out
}
