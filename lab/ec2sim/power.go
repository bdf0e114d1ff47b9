package ec2sim

// PowerInput names instances to stop, start or reboot.
type PowerInput struct{ IDs []string }

// StopInstances stops instances, all of those named or none. They keep their
// ENIs and private addresses; a public address that came with the launch goes.
func (c *Cloud) StopInstances(in PowerInput) ([]StateChange, error) {
	return call(c, in, stopInstances)
}

// StartInstances starts instances that were stopped.
func (c *Cloud) StartInstances(in PowerInput) ([]StateChange, error) {
	return call(c, in, startInstances)
}

// RebootInstances boots running instances anew.
func (c *Cloud) RebootInstances(in PowerInput) error {
	_, err := call(c, in, rebootInstances)
	return err
}

// switchAll does something to each of the instances named.
func (s *state) switchAll(ids []string, do func(Instance) (Instance, error)) ([]StateChange, error) {
	if len(ids) == 0 {
		return nil, missing("InstanceId")
	}
	var out []StateChange
	for _, id := range ids {
		i, err := s.findInstance(id)
		if err != nil {
			return nil, err
		}
		before := i.State
		if i, err = do(i); err != nil {
			return nil, err
		}
		out = append(out, StateChange{id, before, i.State})
	}
	return out, nil
}

func stopInstances(s *state, in PowerInput) ([]StateChange, error) {
	return s.switchAll(in.IDs, func(i Instance) (Instance, error) {
		switch i.State {
		case StateStopping, StateStopped:
			return i, nil
		case StateRunning, StatePending:
		default:
			return i, incorrectInstanceState(i, "stop it")
		}
		if e, ok := s.primaryOf(i); ok && e.AutoPublic.IsValid() {
			i.PublicAtStart = true
			s.enis.put(e.ID, s.dropAutoPublic(e))
		}
		i.State = StateStopping
		s.instances.put(i.ID, i)
		if !s.cfg.Devices {
			i = s.stopped(i)
		}
		return i, nil
	})
}

// stopped makes a stopping instance stopped. What was being attached to it is:
// there is no device to wait for.
func (s *state) stopped(i Instance) Instance {
	for _, id := range i.Interfaces {
		if e, _ := s.enis.get(id); e.Attachment.Status == StatusAttaching {
			s.attached(e)
		}
	}
	i.State = StateStopped
	s.instances.put(i.ID, i)
	return i
}

func (s *state) attached(e NetworkInterface) {
	a := *e.Attachment
	a.Status = StatusAttached
	e.Attachment = &a
	s.enis.put(e.ID, e)
}

func startInstances(s *state, in PowerInput) ([]StateChange, error) {
	return s.switchAll(in.IDs, func(i Instance) (Instance, error) {
		switch i.State {
		case StatePending, StateRunning:
			return i, nil
		case StateStopped:
		default:
			return i, incorrectInstanceState(i, "start it")
		}
		if e, ok := s.primaryOf(i); ok && i.PublicAtStart && len(i.Interfaces) == 1 {
			var err error
			if e.AutoPublic, err = s.takePublic(); err != nil {
				return i, err
			}
			s.enis.put(e.ID, e)
		}
		i.PublicAtStart, i.LaunchedAt, i.State = false, s.now, StateRunning
		if s.cfg.Devices {
			i.State = StatePending
		}
		s.instances.put(i.ID, i)
		return i, nil
	})
}

func rebootInstances(s *state, in PowerInput) (struct{}, error) {
	_, err := s.switchAll(in.IDs, func(i Instance) (Instance, error) {
		if i.State != StateRunning {
			return i, incorrectInstanceState(i, "reboot it")
		}
		i.Reboots++
		s.instances.put(i.ID, i)
		return i, nil
	})
	return struct{}{}, err
}

// InstanceStopped reports that a stopping instance, in whichever region, has
// no power any more. For one that is no longer stopping it says nothing new.
func (c *Cloud) InstanceStopped(id string) error {
	return report(c, id, hasInstance(id), func(s *state, id string) error {
		i, err := find(&s.instances, kindInstance, id)
		if err == nil && i.State == StateStopping {
			s.stopped(i)
		}
		return err
	})
}

func parseStop(f form) PowerInput {
	f.in("Force").flag() // a guest of the lab is never asked
	return parsePower(f)
}

func parsePower(f form) PowerInput { return PowerInput{IDs: f.in("InstanceId").texts()} }

// statusQuery asks for the health of instances; All: also of those that do not run.
type statusQuery struct {
	Query
	All bool
}

var statusListing = listing[Instance]{
	action: "DescribeInstanceStatus", maxPage: 1000, idsName: "instanceId",
	fields: map[string]func(*state, Instance) []string{
		"instance-state-name":          instanceListing.fields["instance-state-name"],
		"instance-state-code":          instanceListing.fields["instance-state-code"],
		"availability-zone":            instanceListing.fields["availability-zone"],
		"instance-status.status":       one(healthOf),
		"system-status.status":         one(healthOf),
		"instance-status.reachability": one(reachOf),
		"system-status.reachability":   one(reachOf),
	},
}

// healthOf is what both checks of an instance say. The lab knows no ill ones.
func healthOf(i Instance) string {
	switch i.State {
	case StateRunning:
		return "ok"
	case StatePending:
		return "initializing"
	}
	return "not-applicable"
}

func reachOf(i Instance) string {
	return map[string]string{"ok": "passed", "initializing": "initializing"}[healthOf(i)]
}

func parseStatus(f form) statusQuery {
	return statusQuery{f.query("InstanceId"), f.in("IncludeAllInstances").flag().Value}
}

func describeStatus(s *state, q statusQuery) (Page[Instance], error) {
	for _, id := range q.IDs {
		if _, err := s.findInstance(id); err != nil {
			return Page[Instance]{}, err
		}
	}
	all := rows(&s.instances, q.IDs)
	return statusListing.apply(s, q.Query, func(yield func(uint64, Instance) bool) {
		for at, i := range all {
			if !s.forgotten(i) && (q.All || i.State == StateRunning) && !yield(at, i) {
				return
			}
		}
	})
}

type xmlHealth struct {
	Status string `xml:"status"`
	Name   string `xml:"details>item>name,omitempty"`
	Reach  string `xml:"details>item>status,omitempty"`
}

type xmlStatus struct {
	ID       string    `xml:"instanceId"`
	Zone     string    `xml:"availabilityZone"`
	ZoneID   string    `xml:"availabilityZoneId"`
	State    xmlState  `xml:"instanceState"`
	System   xmlHealth `xml:"systemStatus"`
	Instance xmlHealth `xml:"instanceStatus"`
}

func renderStatus(s *state, page Page[Instance]) replier {
	return &struct {
		reply
		Set  set[xmlStatus] `xml:"instanceStatusSet"`
		Next string         `xml:"nextToken,omitempty"`
	}{Next: page.NextToken, Set: setOf(page.Items, func(i Instance) xmlStatus {
		h := xmlHealth{Status: healthOf(i), Name: "reachability", Reach: reachOf(i)}
		if h.Reach == "" {
			h.Name = ""
		}
		return xmlStatus{i.ID, i.Zone, s.zoneID(i.Zone), showState(i.State), h, h}
	})}
}
