package fleet

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/clock"
)

const (
	// listEvery is how often the agents are listed while all is well, and listPause the
	// least time between two lists.
	listEvery = 30 * time.Second
	listPause = time.Second
	// listWithin is how long the API server may take for a list.
	listWithin = 30 * time.Second
	// forgetAfter is how many lists in a row a node has to be missing from to be forgotten.
	forgetAfter = 20
)

// ErrNone says that no agent has ever answered, and that none is left to try.
var ErrNone = errors.New("no agent is left to listen to")

// Pauses are those before further attempts to reach an agent: a second, then twice as long
// each time, up to half a minute.
func Pauses() *wait.Backoff {
	return &wait.Backoff{Duration: time.Second, Factor: 2, Steps: math.MaxInt32, Cap: 30 * time.Second}
}

// Listener is told what becomes of agents, by one goroutine at a time.
type Listener interface {
	// Line is what an agent has printed, without the line's end.
	Line(Agent, []byte)
	// Lost says why nothing comes from an agent for now, nil if its command ended well.
	// It is not called again before Back.
	Lost(Agent, error)
	// Back says that a lost agent has something to say again.
	Back(Agent)
	// Gone says that a node is no longer there. Its agent was lost before.
	Gone(Agent)
}

// Keeper follows the agents of a cluster as Follow does. It comes back to those whose
// command ends, and follows those of new nodes, too.
type Keeper struct {
	Runner  Runner
	Command []string // prints a line as soon as it listens
	// Find lists the agents anew.
	Find  func(context.Context) ([]Agent, error)
	To    Listener
	Clock clock.Clock

	mu    sync.Mutex // held while To is called
	heard bool       // some agent has said something
	nodes map[string]*kept
	ended chan *kept
}

// kept is the agent of a node. The Keeper's mutex guards lost and pauses.
type kept struct {
	agent   Agent // as it was listed last
	running bool
	lost    bool
	pauses  *wait.Backoff
	due     time.Time // not to be tried before
	missing int       // from so many lists
}

// Run follows agents, as they were listed just now, until ctx ends: then it returns nil.
// The other error is ErrNone.
func (k *Keeper) Run(ctx context.Context, agents []Agent) error {
	var all sync.WaitGroup
	defer all.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	k.nodes, k.ended = map[string]*kept{}, make(chan *kept)
	k.take(agents)
	listed := k.Clock.Now()
	for {
		k.start(ctx, &all)
		if k.hopeless() && ctx.Err() == nil {
			return ErrNone
		}
		timer := k.Clock.NewTimer(k.next(listed).Sub(k.Clock.Now()))
		select {
		case <-ctx.Done():
		case n := <-k.ended:
			n.running, n.due = false, k.Clock.Now().Add(k.pause(n))
		case <-timer.C():
			k.list(ctx)
			listed = k.Clock.Now()
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// list looks which agents there are. If that cannot be found out, those that are known are
// tried as they are.
func (k *Keeper) list(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, listWithin)
	defer cancel()
	if found, err := k.Find(ctx); err == nil {
		k.take(found)
	}
}

// take learns which agents there are.
func (k *Keeper) take(found []Agent) {
	for _, n := range k.nodes {
		n.missing++
	}
	for _, a := range found {
		n := k.nodes[a.Node]
		if n == nil {
			n = &kept{pauses: Pauses()}
			k.nodes[a.Node] = n
		}
		if n.agent.Pod != a.Pod {
			n.due = time.Time{}
		}
		n.agent, n.missing = a, 0
	}
	for node, n := range k.nodes {
		if n.missing > forgetAfter && !n.running {
			delete(k.nodes, node)
			k.tell(func() { k.To.Gone(n.agent) })
		}
	}
}

// start runs the command for those that are due.
func (k *Keeper) start(ctx context.Context, all *sync.WaitGroup) {
	now := k.Clock.Now()
	for _, n := range k.nodes {
		switch {
		case n.running || n.due.After(now):
		case n.agent.Pod == "":
			k.lose(n, n.agent, errors.New(n.agent.Why))
			n.due = now.Add(k.pause(n))
		default:
			n.running = true
			agent := n.agent
			all.Go(func() { k.follow(ctx, n, agent) })
		}
	}
}

// follow runs the command for one agent.
func (k *Keeper) follow(ctx context.Context, n *kept, agent Agent) {
	err := follow(ctx, k.Runner, agent, k.Command, func(text []byte) {
		k.tell(func() {
			if ctx.Err() != nil {
				return
			}
			if n.lost {
				k.To.Back(agent)
			}
			n.lost, n.pauses, k.heard = false, Pauses(), true
			k.To.Line(agent, text)
		})
	})
	if ctx.Err() == nil {
		k.lose(n, agent, err)
	}
	select {
	case k.ended <- n:
	case <-ctx.Done():
	}
}

// lose says that an agent is lost, if that was not said yet.
func (k *Keeper) lose(n *kept, agent Agent, err error) {
	k.tell(func() {
		if !n.lost {
			k.To.Lost(agent, err)
		}
		n.lost = true
	})
}

func (k *Keeper) tell(what func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	what()
}

// pause is how long to wait before an agent is tried again.
func (k *Keeper) pause(n *kept) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	return n.pauses.Step()
}

// hopeless reports whether no agent has ever answered, and none is being asked.
func (k *Keeper) hopeless() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, n := range k.nodes {
		if n.running {
			return false
		}
	}
	return !k.heard
}

// next is when to list the agents again: when one is to be tried, but not too often.
func (k *Keeper) next(listed time.Time) time.Time {
	times := []time.Time{listed.Add(listEvery)}
	for _, n := range k.nodes {
		if !n.running {
			times = append(times, n.due)
		}
	}
	next := slices.MinFunc(times, time.Time.Compare)
	if earliest := listed.Add(listPause); next.Before(earliest) {
		return earliest
	}
	return next
}
