package world

import "testing"

// An instance is told the region of its VPC, not that of the World.
func TestMetadataRegion(t *testing.T) {
	c, _ := built(t, "two-regions.yaml")
	snap := c.Snapshot()
	for i, want := range []string{"eu-west-1", "us-east-1"} {
		m, ok := metadata(snap, snap.Instances[i].ID)
		if !ok || m.Region != want || m.AvailabilityZone != want+"a" {
			t.Errorf("%s: region %q, zone %q, want %s", snap.Instances[i].Name, m.Region, m.AvailabilityZone, want)
		}
	}
}
