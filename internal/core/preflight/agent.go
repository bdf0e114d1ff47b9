package preflight

import (
	"cmp"
	"fmt"
	"slices"
)

// agent looks at what Fairway has on the node. Before it is installed there is
// nothing to look at.
func (j *judge) agent() {
	checks := []string{"agent", "network configuration", "plugin", "records", "drift"}
	if !j.installed {
		for _, check := range checks {
			j.skip(check, "Fairway is not installed here yet")
		}
		return
	}
	j.reachable()
	j.configuration()
	j.plugin()
	j.records()
	j.drift()
}

func (j *judge) reachable() {
	const check = "agent"
	if !j.Agent.Known {
		j.say(check, Failed, j.Agent.Why, "start fairway-agent, or see why it ended (its log; `kubectl -n kube-system logs` of its pod): pods that run keep their network, and new ones get none")
		return
	}
	a := j.Agent.Value
	j.ok(check, "it answers, release %s", cmp.Or(a.Version, "unknown"))
	for _, text := range a.Wrong {
		j.say("agent's status", Failed, text, "")
	}
	for _, text := range a.Warnings {
		j.say("agent's status", Warning, text, "")
	}
}

// configuration is what makes the runtime call the plugin.
func (j *judge) configuration() {
	const check = "network configuration"
	if !known(j, check, j.Lists) {
		return
	}
	i := slices.IndexFunc(j.Lists.Value, func(l List) bool { return l.File == OurList })
	switch {
	case i < 0:
		j.say(check, Failed, fmt.Sprintf("%s has no %s", j.ListDir, OurList), "restart the agent, which writes it, and see that it writes to the runtime's directory (--cni-conf-dir): the node is not ready without it")
	case j.Lists.Value[i].Problem != "":
		j.say(check, Failed, fmt.Sprintf("%s: %s", OurList, j.Lists.Value[i].Problem), "restart the agent, which writes it anew")
	case !slices.Contains(j.Lists.Value[i].Plugins, OurPlugin):
		j.say(check, Failed, fmt.Sprintf("%s calls no %s, but %s", OurList, OurPlugin, join(j.Lists.Value[i].Plugins)), "restart the agent, which writes it anew, and find out who has changed it")
	default:
		j.ok(check, "%s calls %s", OurList, join(j.Lists.Value[i].Plugins))
	}
}

// plugin compares its release with the agent's.
func (j *judge) plugin() {
	const check = "plugin"
	if !j.Plugin.Known {
		j.say(check, Failed, j.Plugin.Why, "put fairway-cni there: every pod's start fails without it")
		return
	}
	p := j.Plugin.Value
	switch a := j.Agent; {
	case p.Problem != "":
		j.say(check, Failed, fmt.Sprintf("%s: %s", p.File, p.Problem), "put fairway-cni of the agent's release there")
	case !a.Known:
		j.skip(check, fmt.Sprintf("%s is of release %s; the agent does not say its own", p.File, p.Version))
	case p.Version != a.Value.Version:
		j.say(check, Warning, fmt.Sprintf("%s is of release %s, and the agent of %s", p.File, p.Version, a.Value.Version), "put the plugin of the agent's release there: neighbouring releases understand each other, others need not")
	default:
		j.ok(check, "%s is of the agent's release", p.File)
	}
}

func (j *judge) records() {
	const check = "records"
	if !known(j, check, j.Records) {
		return
	}
	r := j.Records.Value
	if len(r.Bad) > 0 {
		j.say(check, Failed, fmt.Sprintf("%d of %d in %s cannot be read: %s", len(r.Bad), r.Read+len(r.Bad), r.Dir, join(r.Bad)),
			"stop the agent, and see `fairway-agent records list`; their addresses are out of use until they are removed")
		return
	}
	j.ok(check, "all %d in %s can be read", r.Read, r.Dir)
}

func (j *judge) drift() {
	const check = "drift"
	switch {
	case !j.Agent.Known:
		j.skip(check, "the agent does not answer")
	case !known(j, check, j.Drift):
	case len(j.Drift.Value) == 0:
		j.ok(check, "the kernel holds what it should")
	default:
		j.say(check, Failed, fmt.Sprintf("%s to make: %s", count(len(j.Drift.Value), "change"), join(j.Drift.Value)),
			"see the agent's log for why it cannot make them (`repair the kernel`), and who changes them back")
	}
}
