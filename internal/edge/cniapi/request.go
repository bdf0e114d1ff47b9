package cniapi

import (
	"errors"
	"strconv"
	"time"
)

// The environment variables of the CNI specification: section 2, "Parameters".
const (
	EnvCommand     = "CNI_COMMAND"
	EnvContainerID = "CNI_CONTAINERID"
	EnvNetNS       = "CNI_NETNS"
	EnvIfName      = "CNI_IFNAME"
	EnvArgs        = "CNI_ARGS"
	EnvPath        = "CNI_PATH"
)

// The commands of the CNI specification. VERSION does not go to the agent: the
// plugin knows the answer.
const (
	CommandAdd    = "ADD"
	CommandDel    = "DEL"
	CommandCheck  = "CHECK"
	CommandStatus = "STATUS"
	CommandGC     = "GC"

	CommandVersion = "VERSION"
)

// Where plugin and agent meet when the network configuration does not say.
const (
	DefaultSocket = "/run/fairway/cni.sock"
	DefaultSpool  = "/run/fairway/spool"
)

// LatestVersion is the newest version of the specification that we speak, and
// the one used in an error about a request that names none.
const LatestVersion = "1.1.0"

// SupportedVersions lists the versions of the specification that we speak,
// oldest first. 0.3.0 is left out as its own authors withdrew it for a result
// format with a mistake in it, and what is older has no interfaces in results.
func SupportedVersions() []string {
	return []string{"0.3.1", "0.4.0", "1.0.0", LatestVersion}
}

// since is the first version that has the command.
func since(command string) string {
	switch command {
	case CommandCheck:
		return "0.4.0"
	case CommandStatus, CommandGC:
		return "1.1.0"
	}
	return "0.3.1"
}

// CheckVersion tells whether version is one of [SupportedVersions] and has the
// command. The error is a CNI error 1 that names the versions that do.
func CheckVersion(command, version string) *Error {
	var have []byte
	usable := false
	for _, v := range SupportedVersions() {
		// The versions that we know compare as their text does.
		if v < since(command) {
			continue
		}
		have = appendItem(have, v)
		usable = usable || v == version
	}
	if usable {
		return nil
	}
	msg := "cniVersion " + strconv.Quote(version) + " is not supported for " + command
	if version == "" {
		msg = "the network configuration has no cniVersion, which means 0.1.0, and that is not supported"
	}
	return &Error{CodeIncompatibleVersion, msg, "supported versions: " + string(have)}
}

// VersionResult is the answer to VERSION: specification, section 5, "Version".
func VersionResult(asked string) []byte {
	b := appendMember([]byte{'{'}, "cniVersion", asked)
	b = append(appendKey(b, "supportedVersions"), '[')
	for i, v := range SupportedVersions() {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, v)
	}
	return append(b, ']', '}')
}

// ValidateEnvironment checks what the runtime says by environment variables, by
// the command's list of those that it needs. The error is a CNI error 4 that
// names every variable that is wrong, so that nobody has to come back for the
// second one.
func (r Request) ValidateEnvironment() *Error {
	var missing, invalid []byte
	need := func(name, value string, valid func(string) error) {
		if value == "" {
			missing = appendItem(missing, name)
		} else if err := valid(value); err != nil {
			invalid = appendItem(invalid, name+" "+strconv.Quote(value)+" "+err.Error())
		}
	}
	switch r.Command {
	case CommandAdd, CommandCheck, CommandDel:
		need(EnvContainerID, r.ContainerID, ValidContainerID)
		need(EnvIfName, r.IfName, ValidIfName)
		if r.Command != CommandDel { // whose namespace may be gone
			need(EnvNetNS, r.NetNS, func(string) error { return nil })
		}
	case CommandStatus, CommandGC:
	case "":
		missing = appendItem(missing, EnvCommand)
	default:
		invalid = appendItem(invalid, EnvCommand+" "+strconv.Quote(r.Command)+" is none of ADD, DEL, CHECK, STATUS, GC, VERSION")
	}
	var msg string
	if len(missing) > 0 {
		msg = "missing environment variable: " + string(missing)
	}
	if len(invalid) > 0 {
		if msg != "" {
			msg += "; "
		}
		msg += "invalid environment variable: " + string(invalid)
	}
	if msg == "" {
		return nil
	}
	return &Error{CodeInvalidEnvironment, msg, ""}
}

func appendItem(list []byte, item string) []byte {
	if len(list) > 0 {
		list = append(list, ", "...)
	}
	return append(list, item...)
}

// Config is what the plugin itself needs of a network configuration. The rest
// is for the agent, which gets it as it came.
type Config struct {
	CNIVersion string
	Name       string
	Socket     string // absolute path
	Spool      string // absolute path of a directory
	LogFile    string // "stderr" or an absolute path; empty: no log
	LogLevel   string // DEBUG, INFO, WARN, ERROR or FATAL in any case; empty: INFO
}

// ReadConfig reads a network configuration as it comes on a plugin's standard
// input. Text that is not JSON is a CNI error 6 that says at which offset; a
// value that cannot be is a CNI error 7 that names the key. The Config is as
// complete as it could be read also when there is an error, so that the answer
// can be given in the version that was asked for.
func ReadConfig(stdin []byte) (Config, *Error) {
	c := Config{Socket: DefaultSocket, Spool: DefaultSpool}
	fields := map[string]*string{
		"cniVersion": &c.CNIVersion, "name": &c.Name, "socket": &c.Socket, "spool": &c.Spool,
		"pluginLogFile": &c.LogFile, "pluginLogLevel": &c.LogLevel,
	}
	var wrong *Error
	err := members(stdin, func(key string, value []byte) error {
		field := fields[key]
		if field == nil {
			return nil
		}
		s, err := stringValue(value)
		if err != nil && wrong == nil {
			code := CodeInvalidConfig
			if key == "cniVersion" {
				code = CodeDecode
			}
			wrong = &Error{code, "network configuration: " + key + ": must be a string", ""}
		}
		*field = s
		return nil
	})
	if err != nil {
		return c, &Error{CodeDecode, "network configuration on standard input: " + err.Error(),
			"the text must be one JSON object; got " + strconv.Itoa(len(stdin)) + " bytes"}
	}
	if wrong != nil {
		return c, wrong
	}
	return c, nil
}

// Validate checks what the plugin acts on. It is apart from [ReadConfig]
// because VERSION needs no more than a version.
func (c Config) Validate() *Error {
	if err := ValidNetworkName(c.Name); err != nil {
		return &Error{CodeInvalidConfig, "network configuration: name " + strconv.Quote(c.Name) + ": " + err.Error(), ""}
	}
	// The kernel keeps a zero byte behind the path: unix(7), sun_path.
	const maxSocket = 107
	if len(c.Socket) == 0 || c.Socket[0] != '/' || len(c.Socket) > maxSocket {
		return &Error{CodeInvalidConfig, "network configuration: socket " + strconv.Quote(c.Socket) +
			": must be an absolute path of at most " + strconv.Itoa(maxSocket) + " bytes", ""}
	}
	if len(c.Spool) == 0 || c.Spool[0] != '/' {
		return &Error{CodeInvalidConfig, "network configuration: spool " + strconv.Quote(c.Spool) + ": must be an absolute path", ""}
	}
	return nil
}

var (
	errEmpty    = errors.New("is empty")
	errChars    = errors.New("must begin with a letter or digit, and hold only letters, digits, '_', '.' and '-'")
	errLong     = errors.New("must not be longer than 15 bytes")
	errDots     = errors.New("must not be \".\" or \"..\"")
	errIfChars  = errors.New("must not hold '/', ':' or white space")
	errTooLong  = errors.New("must not be longer than 1024 bytes")
	errNotASCII = errors.New("must be printable ASCII")
)

// ValidContainerID checks a CNI_CONTAINERID by the rule of the specification,
// section 2, "Parameters". The bound on the length is ours: runtimes use 64.
func ValidContainerID(id string) error {
	if len(id) > 1024 {
		return errTooLong
	}
	return validName(id)
}

// ValidNetworkName checks the name of a network, which has the rule of a
// container ID: specification, section 1, "Configuration format".
func ValidNetworkName(name string) error {
	if len(name) > 1024 {
		return errTooLong
	}
	return validName(name)
}

func validName(s string) error {
	if s == "" {
		return errEmpty
	}
	for i := range len(s) {
		switch c := s[i]; {
		case isDigit(c), c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		case i > 0 && (c == '_' || c == '.' || c == '-'):
		default:
			return errChars
		}
	}
	return nil
}

// ValidIfName checks a CNI_IFNAME by the kernel's own rule for a device
// (dev_valid_name in net/core/dev.c; IFNAMSIZ is 16 with a zero byte), and
// refuses what is not printable ASCII too: the kernel takes most of it, and it
// spoils every listing.
func ValidIfName(name string) error {
	switch {
	case name == "":
		return errEmpty
	case len(name) > 15:
		return errLong
	case name == "." || name == "..":
		return errDots
	}
	for i := range len(name) {
		switch c := name[i]; {
		case c == '/' || c == ':' || c == ' ' || c >= '\t' && c <= '\r':
			return errIfChars
		case c < 0x21 || c > 0x7e:
			return errNotASCII
		}
	}
	return nil
}

// Patience is how long the plugin tries to reach the agent, and then how long
// it waits for the answer.
//
// The kubelet gives a sandbox call four minutes and a runtime call two
// (runtimeRequestTimeout, "Kubelet Configuration"), and containerd and CRI-O
// put no limit of their own on a plugin. So ADD and the other calls that change
// something get one minute: long enough for an agent that waits for EC2 to
// attach an ENI, short enough that our error, which says what was going on, is
// what the user sees, and not a timeout.
//
// DEL has the spool to fall back on and so gives up early: a pod's end is held
// up by seven seconds at most. STATUS is asked every few seconds and is about
// this moment.
func Patience(command string) (connect, answer time.Duration) {
	const connectFor = 2 * time.Second // an agent that restarts is back within it
	switch command {
	case CommandDel:
		return connectFor, 5 * time.Second
	case CommandStatus:
		return 0, 5 * time.Second
	}
	return connectFor, 60 * time.Second
}
