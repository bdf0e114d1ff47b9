package bundle

import (
	"regexp"
	"slices"
	"strings"
)

// nft prints a comment without escapes; a quote cannot be in it.
var (
	nftComments = regexp.MustCompile(`\bcomment "[^"]*"`)
	// What else is text of somebody's own: prefixes of logs, names of objects, users
	// and control groups. Other texts in quotes are devices.
	nftTexts  = regexp.MustCompile(`\b(prefix|name|helper set|timeout set|expectation set|skuid|skgid|cgroupv2 level \d+) "[^"]*"`)
	nftTable  = regexp.MustCompile(`^(table \S+ )(\S+)( \{)`)
	nftObject = regexp.MustCompile(`^(\s*(?:chain|set|map|flowtable|counter|quota|limit|ct helper|ct timeout|ct expectation|secmark|synproxy) )(\S+)( \{)`)
	nftJumps  = regexp.MustCompile(`(\b(?:jump|goto) )([^\s,;{}]+)`)
	nftSets   = regexp.MustCompile(`(@)([^\s,;{}]+)`)
	ruleNames = regexp.MustCompile(`[-A-Za-z0-9_.]*[A-Za-z][-A-Za-z0-9_.]*/[-A-Za-z0-9_./]+`)
	rates     = regexp.MustCompile(`/(second|minute|hour|day|week)$`)
)

// Tables whose chains and sets are named by a program, whoever runs it, and by
// nobody's objects but with a slash.
var programTables = []string{"fairway", "kube-proxy"}

// Tables that are called so everywhere.
var commonTables = []string{"fairway", "kube-proxy", "raw", "mangle", "nat", "filter", "security", "calico", "cilium", "docker", "firewalld"}

// Chains that are called so everywhere: the kernel's hooks, and those that
// kube-proxy, the Amazon VPC CNI, Cilium, Calico and the runtimes always make.
var commonChains = regexp.MustCompile(`^((?i:prerouting|input|forward|output|postrouting|ingress|egress)|` +
	`KUBE-[A-Z]+(-[A-Z]+)*|AWS-[-A-Z]+[0-9]*|(OLD_)?CILIUM_[A-Za-z0-9_]+|DOCKER(-[-A-Z0-9]+)?|CNI-(HOSTPORT-(DNAT|SETMARK|MASQ)|FORWARD|ADMIN)|` +
	`cali-(PREROUTING|INPUT|FORWARD|OUTPUT|POSTROUTING|from-wl-dispatch|to-wl-dispatch|wl-to-host|cidr-block|nat-outgoing|fip-dnat|fip-snat))$`)

// Chains of one Service, pod or policy each. The rest of the name says which, or is
// a hash of it, which whoever guesses a name can compare.
var objectChains = regexp.MustCompile(`^(KUBE-(?:SVC|SVL|SEP|EXT|FW|XLB|POD-FW|NWPLCY|SRC|DST)|CNI-(?:DN|SN)|(?:[a-z]+-)?cali-(?:tw|fw|th|fh|pi|po|pri|pro))-.+$`)

// chain is the new name of a chain.
func (r *redactor) chain(name string) string {
	if m := objectChains.FindStringSubmatch(name); m != nil {
		return r.giveAs("chain", m[1], name)
	}
	if commonChains.MatchString(name) {
		return name
	}
	return r.give("chain", name)
}

// nftables replaces what rules of nft name.
func (r *redactor) nftables(lines []string) {
	program := false // the table is one of programTables
	sets := map[string]bool{}
	for _, s := range lines {
		if m := nftObject.FindStringSubmatch(s); m != nil && !isChain(m) {
			sets[m[2]] = true
		}
	}
	each := func(re *regexp.Regexp, s string, give func(m []string) string) string {
		return re.ReplaceAllStringFunc(s, func(c string) string { return give(re.FindStringSubmatch(c)) })
	}
	for i, s := range lines {
		s = nftComments.ReplaceAllStringFunc(s, func(c string) string {
			return `comment "` + r.give("comment", strings.Trim(c[len("comment "):], `"`)) + `"`
		})
		if m := nftTable.FindStringSubmatch(s); m != nil {
			program = slices.Contains(programTables, m[2])
			if !slices.Contains(commonTables, m[2]) {
				s = m[1] + r.give("table", m[2]) + m[3] + s[len(m[0]):]
			}
		} else if !program {
			s = each(nftObject, s, func(m []string) string {
				if isChain(m) {
					return m[1] + r.object(m[2]) + m[3]
				}
				return m[1] + r.give("set", m[2]) + m[3]
			})
			s = each(nftJumps, s, func(m []string) string { return m[1] + r.object(m[2]) })
			s = each(nftSets, s, func(m []string) string {
				if sets[m[2]] {
					return m[1] + r.give("set", m[2])
				}
				return m[0] // a place in the packet: @th,16,16
			})
			s = each(nftTexts, s, func(m []string) string {
				kind := "text"
				if m[1] == "name" { // of an object
					kind = "set"
				}
				return m[1] + ` "` + r.give(kind, strings.Trim(m[0][len(m[1])+1:], `"`)) + `"`
			})
		}
		s = ruleNames.ReplaceAllStringFunc(s, func(n string) string {
			if strings.HasPrefix(n, "0x") || rates.MatchString(n) {
				return n // a mark and its mask, or so many a second
			}
			return r.give("rule-name", n)
		})
		lines[i] = r.line(s)
	}
}

func isChain(m []string) bool { return strings.TrimSpace(m[1]) == "chain" }

// object is the new name of a chain of nftables. One with a slash is a Service's, and
// is replaced wherever it stands.
func (r *redactor) object(name string) string {
	if strings.Contains(name, "/") {
		return name
	}
	return r.chain(name)
}

// Options of iptables whose argument is somebody's own text or name
// (iptables-extensions(8)).
var iptTexts = map[string]string{
	"--comment": "comment", "--match-set": "set", "--add-set": "set", "--del-set": "set", "--map-set": "set",
	"--log-prefix": "text", "--nflog-prefix": "text", "--string": "text", "--hex-string": "text", "--name": "text", "--hashlimit-name": "text",
	"--helper": "text", "--path": "text", "--cgroup": "text", "--uid-owner": "text", "--gid-owner": "text", "--label": "text",
	"--rateest": "text", "--rateest-name": "text", "--object-pinned": "text", "--bytecode": "text", "--u32": "text", "--selctx": "text", "--led-trigger-id": "text",
}

// iptables replaces what lines of iptables-save name.
func (r *redactor) iptables(lines []string) {
	chains := map[string]bool{}
	for _, s := range lines {
		if name, ok := strings.CutPrefix(s, ":"); ok {
			name, _, _ = strings.Cut(name, " ")
			chains[name] = true
		}
	}
	for i, s := range lines {
		words := iptWords(s)
		for k, w := range words {
			before := ""
			if k > 0 {
				before = words[k-1]
			}
			switch kind := iptTexts[before]; {
			case kind != "":
				words[k] = r.give(kind, strings.Trim(w, `"`))
				if w[0] == '"' {
					words[k] = `"` + words[k] + `"`
				}
			case k == 0 && w[0] == ':':
				words[k] = ":" + r.chain(w[1:])
			case (before == "-A" || before == "-j" || before == "-g") && chains[w]:
				words[k] = r.chain(w)
			case w[0] == '"':
				words[k] = `"` + r.give("text", w[1:]) + `"`
			}
		}
		if len(words) > 0 && words[0][0] != '#' {
			s = strings.Join(words, " ")
		}
		lines[i] = r.line(s)
	}
}

// iptWords splits a line at blanks; what is in quotes is one word with them. A
// backslash keeps a quote in (xtables_save_string).
func iptWords(line string) []string {
	var out []string
	for {
		line = strings.TrimLeft(line, " \t\r")
		if line == "" {
			return out
		}
		end := strings.IndexAny(line, " \t\r")
		if line[0] == '"' {
			end = 1
			for end < len(line) && line[end] != '"' {
				if line[end] == '\\' {
					end++
				}
				end++
			}
			end++
		}
		if end < 0 || end > len(line) {
			end = len(line)
		}
		out = append(out, line[:end])
		line = line[end:]
	}
}
