package soak

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

const (
	// transit is the time within which a packet that does not arrive has met its end,
	// counted from the end of the call that sent it.
	transit = 100 * time.Millisecond
	// overdue is when a packet that has not arrived never will.
	overdue = 2 * time.Second
	// probesAtOnce packets are sent between two pauses.
	probesAtOnce = 2
	// restartEvery is how many bursts of events there are from one restart of an agent
	// to the next.
	restartEvery = 10
)

// TestChurnAgainstEvaluate changes a cluster at random and judges every packet by what
// package evaluate makes of the states that it can have met.
func TestChurnAgainstEvaluate(t *testing.T) {
	for i, topo := range topologies {
		t.Run(topo.String(), func(t *testing.T) {
			lab.Require(t, needs...)
			c := newChurn(t, topo, uint64(i))
			stop := c.probe()
			begin := time.Now()
			for time.Since(begin) < *churnFor/2 && !t.Failed() {
				c.burst()
			}
			stop()
			c.judgeAll()
			require.Empty(t, c.wrong)
			require.NotZero(t, c.decided)
			slices.Sort(c.took)
			c.result(fmt.Sprintf("random changes, %s, seed %d", topo, *seed), "%d events and %d restarts in %s: %d packets (%d came through), none against the specification; for %d of them (%.1f %%) only one verdict was right, %d met the objects of one kind before older ones of another; changes in force after %s (median), %s (longest)",
				c.events, c.restarted, time.Since(begin).Round(time.Second), c.judged, c.passed, c.decided, 100*float64(c.decided)/float64(max(1, c.judged)), c.mixed,
				c.took[len(c.took)/2].Round(time.Millisecond), c.took[len(c.took)-1].Round(time.Millisecond))
		})
	}
}

// shot is a packet under way.
type shot struct {
	packet
	before, after time.Time // the call that sent it
}

// churn is a site with a world in it.
type churn struct {
	*site
	*world
	random *rand.Rand
	posts  map[string]*post
	agents map[string]*running

	mu       sync.Mutex
	under    []shot               // way, oldest first
	arrivals map[uint32]time.Time // by mark

	took                    []time.Duration
	events, restarted       int
	judged, passed, decided int
	mixed                   int // judged by mixtures of states
	wrong                   []string
}

func newChurn(t *testing.T, topo lab.Topology, stream uint64) *churn {
	c := &churn{site: newSite(t, topo), random: rand.New(rand.NewPCG(*seed, 1<<16+stream)), posts: map[string]*post{}, arrivals: map[uint32]time.Time{}}
	c.world = newWorld(c.site, c.random)
	for _, p := range c.inhabitants {
		require.NoError(t, c.AddPod(p.node, p.fullName(), p.addrs))
		c.posts[p.fullName()] = c.post(p.fullName(), c.arrived)
		t.Cleanup(c.posts[p.fullName()].close)
	}
	c.agents = c.startAll()
	c.confirm(time.Now())
	return c
}

func (c *churn) arrived(p packet) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.arrivals[p.mark] = now
}

// burst makes a few changes at once, and waits until both nodes hold the last state.
func (c *churn) burst() {
	c.t.Helper()
	begin := time.Now()
	touched := map[string]bool{}
	for range 1 + c.random.IntN(4) {
		if c.event(c.random, touched) {
			c.events++
		}
	}
	if c.took != nil && len(c.took)%restartEvery == 0 {
		c.restart(c.Nodes()[c.random.IntN(2)])
	}
	c.confirm(begin)
	c.judge(time.Now().Add(-overdue))
	time.Sleep(time.Duration(c.random.Int64N(int64(30 * time.Millisecond))))
}

// restart replaces the agent of a node.
func (c *churn) restart(node string) {
	c.t.Helper()
	c.restarted++
	require.NoError(c.t, c.agents[node].stop())
	c.agents[node] = c.start(node)
}

// confirm waits until both nodes hold the last state, and notes that none of the
// earlier ones is in force any more.
func (c *churn) confirm(begin time.Time) {
	c.t.Helper()
	c.seal()
	for node, x := range c.indexes {
		var d []nft.Difference
		eventually(c.t, node+" holds the last state", func() bool {
			d = c.differences(node, x)
			return len(d) == 0
		})
	}
	c.took = append(c.took, time.Since(begin))
	c.confirmed(time.Now())
}

// probe sends packets between pods until stop. No two have the same addresses and
// ports.
func (c *churn) probe() (stop func()) {
	var halt atomic.Bool
	done := make(chan struct{})
	random := rand.New(rand.NewPCG(*seed, 1<<17))
	go func() {
		defer close(done)
		type source struct {
			netip.Addr
			protocol int
		}
		sports := map[source]uint16{}
		for mark := uint32(1); !halt.Load(); mark++ {
			from, to := c.inhabitants[random.IntN(len(c.inhabitants))], c.inhabitants[random.IntN(len(c.inhabitants))]
			if from == to {
				continue
			}
			family, protocol := random.IntN(2), []int{unix.IPPROTO_UDP, unix.IPPROTO_TCP}[random.IntN(2)]
			k := source{from.addrs[family], protocol}
			sports[k]++
			s := shot{packet: packet{
				src: from.addrs[family], dst: to.addrs[family], protocol: protocol,
				sport: 10000 + sports[k]%50000, dport: churnPorts[random.IntN(len(churnPorts))], mark: mark,
			}, before: time.Now()}
			err := c.posts[from.fullName()].send(s.packet)
			s.after = time.Now()
			if err == nil {
				c.mu.Lock()
				c.under = append(c.under, s)
				c.mu.Unlock()
			}
			if mark%probesAtOnce == 0 {
				time.Sleep(pause)
			}
		}
	}()
	return func() {
		halt.Store(true)
		<-done
	}
}

// judgeAll waits for the last packets and judges them.
func (c *churn) judgeAll() {
	c.mu.Lock()
	last := time.Now()
	if n := len(c.under); n > 0 {
		last = c.under[n-1].after
	}
	c.mu.Unlock()
	time.Sleep(time.Until(last.Add(overdue)))
	c.judge(last.Add(time.Nanosecond))
}

// judge judges the packets that were sent before a time, and forgets the states that
// no later packet can have met.
func (c *churn) judge(before time.Time) {
	c.mu.Lock()
	n := 0
	for n < len(c.under) && c.under[n].after.Before(before) {
		n++
	}
	shots := slices.Clone(c.under[:n])
	c.under = slices.Delete(c.under, 0, n)
	arrivals := map[uint32]time.Time{}
	for _, s := range shots {
		if at, ok := c.arrivals[s.mark]; ok {
			arrivals[s.mark] = at
			delete(c.arrivals, s.mark)
		}
	}
	c.mu.Unlock()
	for _, s := range shots {
		at, arrived := arrivals[s.mark]
		end := at
		if !arrived {
			end = s.after.Add(transit)
		}
		met := c.met(s.before, end)
		right, wrong := verdicts(met, s.packet, arrived)
		if !right {
			c.mixed++
			right, _ = verdicts(mixtures(met), s.packet, arrived)
			wrong = true
		}
		c.judged++
		if arrived {
			c.passed++
		}
		switch {
		case right && !wrong:
			c.decided++
		case !right && len(c.wrong) < 10:
			c.wrong = append(c.wrong, c.explain(s.packet, s.before, end, arrived))
		}
	}
	if len(shots) > 0 {
		c.forget(shots[len(shots)-1].before)
	}
}
