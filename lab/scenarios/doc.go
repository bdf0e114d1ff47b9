// Package scenarios is the acceptance suite: what Fairway promises, told from
// end to end on real packets, with the three programs as they ship.
//
//	*.txtar      stories that a person can read and run: fairway-lab run FILE
//	*_test.go    stories that need more than a command line: kill -9 at random
//	             moments, faults of EC2, the kernel's own words before and after
//
// The package holds nothing but tests. Each lab of a test has a name of its own,
// so tests run beside each other and beside a lab that is up; what a test says
// about the host it says of its own lab, or of what nobody may change.
package scenarios
