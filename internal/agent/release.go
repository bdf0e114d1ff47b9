package agent

import "runtime/debug"

// release is the version that the build says of the program; empty where it says
// none.
func release() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return ""
}
