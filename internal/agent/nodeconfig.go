package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"github.com/fairway-cni/fairway/internal/core/cluster"
	"github.com/fairway-cni/fairway/internal/edge/agentapi"
	"github.com/fairway-cni/fairway/internal/edge/kube"
)

// optionsFile is the name of the file that holds the options of the NodeConfig in
// force, beside the directory of the records, for a start without API server.
const optionsFile = "nodeconfig.json"

const (
	// trialTime is for how long an agent must have been in order with new options
	// before they count as good, and trialLimit by when it must have been.
	trialTime  = 10 * time.Second
	trialLimit = 2 * time.Minute
	// followSpread is over how long the nodes take over what one was ready with.
	followSpread = 30 * time.Second
	// rolloutLook is how often it is looked at, beside the API server's news.
	rolloutLook = 2 * time.Second
)

// rollout is the options of the NodeConfig that selects this node:
//
//	newest generation --claim--> tried here --in order for a while--> accepted --> others follow
//	                                 '--- refused, ended, not in order ---> failed, all stay
//
// A process that ends while it tries is taken for one that the options have ended,
// unless it was asked to end.
type rollout struct {
	log     *slog.Logger
	api     *kube.Client
	node    string
	path    string
	resolve func(options map[string]string) (Config, error)
	news    chan struct{} // a signal

	mu      sync.Mutex
	base    Config
	file    optionsState
	config  Config             // to run with
	restart context.CancelFunc // ends the run with what it has; nil: none runs
	status  func(context.Context) (agentapi.Status, error)
	problem string
	blame   string // why the trial of this node has failed, until the API has it

	// Of the loop alone.
	seen      cluster.Rollout // the claim that was seen last, and since when
	seenAt    time.Time
	tryingAt  time.Time
	goodAt    time.Time // since when the agent is in order in this trial
	followAt  time.Time // when to follow
	following cluster.Options
}

// optionsState is the file.
type optionsState struct {
	InForce cluster.Options  `json:"inForce"`
	Trying  *cluster.Options `json:"trying,omitempty"`
}

// newRollout begins with what the file says.
func newRollout(base Config, api *kube.Client, resolve func(map[string]string) (Config, error), log *slog.Logger) *rollout {
	r := &rollout{log: log, api: api, node: base.Cluster.NodeName, resolve: resolve, base: base, config: base,
		path: filepath.Join(filepath.Dir(base.StateDir), optionsFile), news: make(chan struct{}, 1)}
	if err := readJSON(r.path, &r.file); err != nil {
		log.Error("read the options of the last NodeConfig; the agent begins without", "error", err)
		r.file = optionsState{}
	}
	if r.file.Trying != nil {
		r.blame = "the agent of this node ended while it tried these options; its log says why"
		r.file.Trying = nil
		r.save()
	}
	if cfg, err := r.resolved(r.file.InForce); err == nil {
		r.config = cfg
	} else {
		r.problem = err.Error()
		log.Error("the options of the last NodeConfig cannot be used; the agent begins without", "nodeconfig", r.file.InForce.Name, "error", err)
		r.file.InForce = cluster.Options{}
	}
	return r
}

// resolved is the configuration with these options. The error names one.
func (r *rollout) resolved(o cluster.Options) (Config, error) {
	if o.Name == "" {
		return r.base, nil
	}
	return r.resolve(o.Options)
}

func (r *rollout) save() {
	data, err := json.Marshal(r.file)
	if err == nil {
		err = replaceFile(r.path, data)
	}
	if err != nil {
		r.log.Warn("keep the options of the NodeConfig for the next start", "error", err)
	}
}

// standing is what is in force, and what is wrong with what is not.
func (r *rollout) standing() (inForce cluster.Options, problem string) {
	if r == nil {
		return cluster.Options{}, ""
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.file.InForce, r.problem
}

// serving says that the agent serves, and how to ask how it is.
func (r *rollout) serving(status func(context.Context) (agentapi.Status, error)) {
	if r == nil {
		return
	}
	r.mu.Lock()
	r.status = status
	r.mu.Unlock()
}

// keepRunning runs the agent, and again whenever the options have changed, until ctx
// ends or the agent fails with options that are not on trial.
func (r *rollout) keepRunning(ctx context.Context, run func(context.Context, Config) error) error {
	var looking sync.WaitGroup
	defer looking.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	looking.Go(func() { r.run(ctx) })
	defer r.end()
	for {
		inner, cancel := context.WithCancel(ctx)
		r.mu.Lock()
		cfg, trying := r.config, r.file.Trying != nil
		r.restart = cancel
		r.mu.Unlock()
		err := run(inner, cfg)
		asked := inner.Err() != nil
		cancel()
		r.mu.Lock()
		r.restart, r.status = nil, nil
		r.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return err
		case asked:
			if err != nil {
				r.log.Error("end the agent with the former options", "error", err)
			}
		case err != nil && trying:
			r.failed("the agent cannot start with these options: " + err.Error())
		default:
			return err
		}
	}
}

// end leaves no trace of a trial: the process was asked to end.
func (r *rollout) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file.Trying != nil {
		r.file.Trying = nil
		r.save()
	}
}

// set runs the agent with other options. r.mu is held.
func (r *rollout) set(cfg Config) {
	r.config = cfg
	if r.restart != nil {
		r.log.Info("the options have changed: the agent begins again", "nodeconfig", r.file.InForce.Name, "trying", r.file.Trying != nil)
		r.restart()
	}
}

// run looks at the NodeConfigs until ctx ends.
func (r *rollout) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.news:
		case <-time.After(rolloutLook):
		}
		n, known := r.api.Node()
		all, seen := r.api.NodeConfigs()
		if known && seen {
			r.look(ctx, n, all)
		}
	}
}

// look does the next step.
func (r *rollout) look(ctx context.Context, n cluster.Node, all []cluster.NodeConfig) {
	now := time.Now()
	c, selected := cluster.Choose(n, all)
	r.mu.Lock()
	inForce, trying := r.file.InForce, r.file.Trying
	r.mu.Unlock()
	if !selected {
		r.note("")
		if trying != nil || !inForce.Same(cluster.Options{}) {
			r.follow(cluster.Options{}, now)
		}
		return
	}
	if c.Rollout != r.seen {
		r.seen, r.seenAt = c.Rollout, now
	}
	act, with := cluster.Next(c, r.node, inForce, now.Sub(r.seenAt))
	if trying != nil && (act != cluster.Try || !trying.Same(with)) {
		r.abandon() // somebody has changed the object meanwhile
	}
	switch act {
	case cluster.Claim:
		r.claim(ctx, c, now)
	case cluster.Try:
		r.try(ctx, c, with, now)
	case cluster.GiveUp:
		r.write(ctx, c, cluster.Failed, "node "+c.Rollout.Node+" took these options up and has not said what came of it; change the object to have it tried again", now)
	case cluster.Follow:
		r.follow(with, now)
	case cluster.Stay:
		r.following = cluster.Options{}
	}
	switch {
	case c.Rollout.Generation == c.Generation && c.Rollout.State == cluster.Failed && c.Accepted.Generation != c.Generation:
		r.note(fmt.Sprintf("generation %d of NodeConfig %s has failed on node %s, and the options before it stay in force: %s", c.Generation, c.Name, c.Rollout.Node, c.Rollout.Message))
	case act != cluster.Follow:
		r.note("")
	}
}

func (r *rollout) note(problem string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.problem != problem && problem != "" {
		r.log.Error("NodeConfig", "problem", problem)
	}
	r.problem = problem
}

// write says what became of the newest generation. Where somebody else was faster, or
// the API server is away, the next look finds what there is to do.
func (r *rollout) write(ctx context.Context, c cluster.NodeConfig, state cluster.RolloutState, message string, now time.Time) bool {
	node := r.node
	if state == cluster.Failed && c.Rollout.Generation == c.Generation {
		node = c.Rollout.Node
	}
	c.Rollout = cluster.Rollout{Generation: c.Generation, Node: node, State: state, Since: now, Message: steady(message)}
	if state == cluster.Accepted {
		c.Accepted = c.Newest()
	}
	err := r.api.WriteRollout(ctx, c)
	if err != nil && !errors.Is(err, kube.ErrConflict) && ctx.Err() == nil {
		r.log.Warn("say what became of a NodeConfig; it is tried again", "nodeconfig", c.Name, "state", state, "error", err)
	}
	return err == nil
}

// claim takes the newest generation up. What cannot be is said at once.
func (r *rollout) claim(ctx context.Context, c cluster.NodeConfig, now time.Time) {
	if _, err := r.resolved(c.Newest()); err != nil {
		r.write(ctx, c, cluster.Failed, err.Error(), now)
		return
	}
	if r.write(ctx, c, cluster.Trying, "", now) {
		r.accuse("")
		r.log.Info("this node tries a NodeConfig", "nodeconfig", c.Name, "generation", c.Generation)
	}
}

// try runs with the newest generation, and says what came of it.
func (r *rollout) try(ctx context.Context, c cluster.NodeConfig, with cluster.Options, now time.Time) {
	r.mu.Lock()
	inForce, trying, status, blame := r.file.InForce, r.file.Trying, r.status, r.blame
	r.mu.Unlock()
	if blame != "" {
		if r.write(ctx, c, cluster.Failed, blame, now) {
			r.accuse("")
		}
		return
	}
	if inForce.Same(with) { // it was accepted here, and that was lost
		r.write(ctx, c, cluster.Accepted, "", now)
		return
	}
	if trying == nil {
		cfg, err := r.resolved(with)
		if err != nil {
			r.write(ctx, c, cluster.Failed, err.Error(), now)
			return
		}
		r.mu.Lock()
		r.file.Trying = &with
		r.save()
		r.tryingAt, r.goodAt = now, time.Time{}
		r.set(cfg)
		r.mu.Unlock()
		return
	}
	fault := "the agent does not serve"
	if status != nil {
		fault = r.fault(ctx, status)
	}
	switch {
	case fault != "" && now.Sub(r.tryingAt) >= trialLimit:
		r.failed("the agent was not in order within " + trialLimit.String() + ": " + fault)
	case fault != "":
		r.goodAt = time.Time{}
	case r.goodAt.IsZero():
		r.goodAt = now
	case now.Sub(r.goodAt) >= trialTime && r.write(ctx, c, cluster.Accepted, "", now):
		r.mu.Lock()
		r.file = optionsState{InForce: with}
		r.save()
		r.mu.Unlock()
		r.log.Info("a NodeConfig is accepted", "nodeconfig", c.Name, "generation", c.Generation)
	}
}

// fault is why an agent is not in order; empty: it is.
func (r *rollout) fault(ctx context.Context, status func(context.Context) (agentapi.Status, error)) string {
	ctx, cancel := context.WithTimeout(ctx, loopPatience)
	defer cancel()
	s, err := status(ctx)
	switch {
	case err != nil:
		return inLoop(err).Error()
	case s.Kernel.Behind:
		return "the kernel cannot be written as it should be"
	case s.Node.CustomFault != "":
		return s.Node.CustomFault
	}
	return ""
}

// failed ends a trial: the options before it are in force again, and the API is told.
func (r *rollout) failed(why string) {
	r.log.Error("a NodeConfig has failed; the options before it are in force again", "error", why)
	r.abandon()
	r.accuse(why)
	ring(r.news)
}

// accuse says what is to be told of this node's trial; empty: nothing.
func (r *rollout) accuse(why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blame = why
}

// abandon ends a trial without a word.
func (r *rollout) abandon() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file.Trying == nil {
		return
	}
	r.file.Trying = nil
	r.save()
	cfg, err := r.resolved(r.file.InForce)
	if err != nil {
		cfg = r.base // cannot be: it was in force
	}
	r.set(cfg)
}

// follow takes over what another node was ready with, or nothing at all, at some time
// of the next half minute.
func (r *rollout) follow(with cluster.Options, now time.Time) {
	if !r.following.Same(with) || r.followAt.IsZero() {
		r.following, r.followAt = with, now.Add(rand.N(followSpread))
	}
	if now.Before(r.followAt) && r.followAt.Sub(now) <= followSpread {
		return
	}
	cfg, err := r.resolved(with)
	if err != nil { // of another release, perhaps
		r.note(fmt.Sprintf("NodeConfig %s cannot be used by this agent, and what was in force stays: %s", with.Name, err))
		return
	}
	r.followAt = time.Time{}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.file = optionsState{InForce: with}
	r.save()
	r.set(cfg)
}
