package world

import (
	"time"

	"github.com/fairway-cni/fairway/lab/ec2sim"
)

// EC2 says how the lab's EC2 behaves. The zero value does everything at once and
// has no quotas; it asks for rights, as EC2 does.
type EC2 struct {
	Pos      Pos
	Throttle bool          // token buckets of EC2's published sizes
	Lag      time.Duration // a request may meet the state of up to so long ago
	Attach   time.Duration // an attachment is attached so late at most
	IMDSLag  time.Duration // the instance metadata is so old at most
	Delay    time.Duration // of every call
	Delays   map[string]time.Duration
	NoIAM    bool           // calls need not be signed by an instance's role that may make them
	Seed     int            // of all that is left to chance
	Quotas   *ec2sim.Quotas // nil: none

	keys keyLines
}

// cloud is how to make the World's EC2.
func (w *World) cloud() ec2sim.Config {
	e := w.EC2
	cfg := ec2sim.Config{
		Region: w.Region, Regions: w.Regions(), Account: Account, Devices: true, Seed: 1,
		Throttle: e.Throttle, Lag: e.Lag, Memory: max(e.Lag, e.IMDSLag), Attach: e.Attach,
		Delay: e.Delay, Delays: e.Delays, Chance: uint64(e.Seed),
		IAM: !e.NoIAM, Roles: w.policies(),
	}
	if e.Quotas != nil {
		cfg.Quotas = *e.Quotas
	}
	return cfg
}
