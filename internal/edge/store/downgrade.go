package store

import (
	"errors"
	"fmt"
)

// Downgrade makes the records of a directory such that the first release can read
// them, and returns how many it has changed. What version 1 cannot say is lost:
// the name of the network. No agent may run; what is done can be done again.
//
// It changes nothing where it cannot change all: where a record cannot be read, or
// where addresses are being given back, which that release would give to pods.
func Downgrade(path string) (changed int, err error) {
	s, err := Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	records, err := s.All()
	if err != nil {
		return 0, err
	}
	leaving, err := s.Leaving()
	if err != nil {
		return 0, err
	}
	if len(leaving) > 0 {
		return 0, fmt.Errorf("downgrade %s: %s and %d more are being given back to EC2: start the agent and stop it once "+
			"they are gone, or remove %s once EC2 no longer lists them", path, leaving[0].Prefix, len(leaving)-1, leavingName)
	}
	for _, r := range records {
		if r.Version == oldestVersion {
			continue
		}
		r.Network = ""
		if err := s.Put(r); err != nil {
			return changed, err
		}
		changed++
	}
	return changed, nil
}
