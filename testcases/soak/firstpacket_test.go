package soak

import (
	"cmp"
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
	corev1 "k8s.io/api/core/v1"

	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

const (
	// openPort is allowed from and to all pods, closedPort only from and to those
	// that no policy selects.
	openPort, closedPort = 7001, 7002
	// nurseries is how many pods are being started at once. Each of them has a pair
	// of addresses, which goes from one pod to the next.
	nurseries = 4
	// rounds is how many times a pod sends to everybody, at least, in each of the
	// conditions that it is in.
	rounds = 4
	// sports is how many source ports a pod uses.
	sports = 50
)

// guarded isolates the pods that have the label in both directions.
const guarded = `{podSelector: {matchLabels: {guarded: "yes"}}, policyTypes: [Ingress, Egress],
ingress: [{ports: [{protocol: UDP, port: 7001}, {protocol: TCP, port: 7001}]}], egress: [{ports: [{protocol: UDP, port: 7001}, {protocol: TCP, port: 7001}]}]}`

// birth is the start of a pod.
type birth struct {
	id      uint32
	name    string
	uid     string // "" if the name is enough of one
	node    string
	guarded bool
	addrs   []netip.Addr
	post    *post
	// announced is set when the agent may know that the pod has its addresses.
	// Senders hold the lock for reading while they look at it and send.
	mu        sync.RWMutex
	announced bool
	rounds    atomic.Int64 // sent so far
	// sport is the first of its source ports and those of who sends to it. Pods do
	// not share any: no flow of an earlier pod with this address answers for it.
	sport uint16
}

// nursery is a site where pods are started while everybody sends.
type nursery struct {
	*site
	targets []target
	births  sync.Map // of *birth, by id

	leaked   atomic.Int64
	sent     atomic.Int64
	arrived  atomic.Int64 // rightly
	mu       sync.Mutex
	examples []string
	// seen has the packets of after an announcement that came through.
	seen sync.Map // of seenKey
}

type seenKey struct {
	id       uint32
	inbound  bool
	endpoint string
	v4       bool
	protocol int
	dport    uint16
}

// target is whom a new pod sends to, and who sends to a new pod.
type target struct {
	endpoint string
	addrs    []netip.Addr
	post     *post
}

func newNursery(t *testing.T, topo lab.Topology) *nursery {
	n := &nursery{site: newSite(t, topo)}
	n.api.makeNamespace(t, namespaceOf("shop", nil))
	n.api.putPolicy(t, policyOf(t, "shop", "guarded", guarded))
	for i, node := range n.Nodes() {
		name := fmt.Sprintf("target-%d", i)
		addrs := n.addresses(node, 10)
		require.NoError(t, n.AddPod(node, "shop/"+name, addrs))
		n.api.makePod(t, podOf("shop", name, name, node, nil, addrs...))
		n.targets = append(n.targets, target{endpoint: "shop/" + name, addrs: addrs})
	}
	n.targets = append(n.targets, target{endpoint: lab.Outside, addrs: n.OutsideAddrs()})
	for i := range n.targets {
		g := &n.targets[i]
		for _, protocol := range []string{"tcp", "udp"} {
			require.NoError(t, n.Serve(g.endpoint, protocol, openPort))
			require.NoError(t, n.Serve(g.endpoint, protocol, closedPort))
		}
		g.post = n.post(g.endpoint, func(p packet) { n.received(p, false, g.endpoint) })
		t.Cleanup(g.post.close)
	}
	return n
}

// received judges a packet that has arrived: inbound at a new pod, or from one.
func (n *nursery) received(p packet, inbound bool, endpoint string) {
	if p.dport != openPort && p.dport != closedPort {
		return
	}
	v, ok := n.births.Load(p.mark >> 1)
	if !ok {
		return
	}
	b, announced := v.(*birth), p.mark&1 == 1
	if !announced || b.guarded && p.dport == closedPort {
		n.leaked.Add(1)
		n.mu.Lock()
		defer n.mu.Unlock()
		if len(n.examples) < 10 {
			n.examples = append(n.examples, fmt.Sprintf("%s: %s at %s (guarded: %v, announced: %v)", b.name, p, endpoint, b.guarded, announced))
		}
		return
	}
	n.arrived.Add(1)
	n.seen.Store(seenKey{p.mark >> 1, inbound, endpoint, p.src.Is4(), p.protocol, p.dport}, true)
}

// noLeak fails the test if a packet has leaked so far.
func (n *nursery) noLeak(when string) {
	n.t.Helper()
	require.Zero(n.t, n.leaked.Load(), "packets leaked %s: %q", when, n.leaks())
}

// leaks are examples of packets that have leaked.
func (n *nursery) leaks() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.examples)
}

// newBirth chooses what kind of pod is next. Every place has addresses of its own.
func (n *nursery) newBirth(id uint32, place int, random *rand.Rand) *birth {
	node := n.Nodes()[place%2]
	b := &birth{id: id, name: fmt.Sprintf("p%d", id), node: node, guarded: random.IntN(4) > 0, addrs: n.addresses(node, 20+place)}
	b.sport = uint16(10000 + id%1000*sports)
	n.births.Store(id, b)
	return b
}

// object is the pod's, with or without its addresses.
func (b *birth) object(addrs ...netip.Addr) *corev1.Pod {
	labels := map[string]string{"name": b.name}
	if b.guarded {
		labels["guarded"] = "yes"
	}
	return podOf("shop", b.name, b.ownUID(), b.node, labels, addrs...)
}

func (b *birth) ownUID() string { return cmp.Or(b.uid, "uid-"+b.name) }

// live makes the pod in the laboratory. When it returns the pod can send.
func (n *nursery) live(b *birth) {
	n.t.Helper()
	require.NoError(n.t, n.AddPod(b.node, "shop/"+b.name, b.addrs))
	b.post = n.post("shop/"+b.name, func(p packet) { n.received(p, true, b.name) })
}

// flood has the pod send to everybody, and everybody to the pod, until stop.
func (n *nursery) flood(b *birth) (stop func()) {
	halt, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			n.round(b)
			b.rounds.Add(1)
			select {
			case <-halt:
				return
			case <-time.After(pause):
			}
		}
	}()
	return func() {
		close(halt)
		<-done
	}
}

// round sends one packet of each kind both ways. Errors are those of the routing
// table, when somebody is not there.
func (n *nursery) round(b *birth) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	mark := b.id << 1
	if b.announced {
		mark |= 1
	}
	sport := b.sport + uint16(b.rounds.Load()%sports)
	for _, g := range n.targets {
		for i := range b.addrs {
			for _, protocol := range []int{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
				for _, port := range []uint16{openPort, closedPort} {
					_ = b.post.send(packet{b.addrs[i], g.addrs[i], protocol, sport, port, mark})
					_ = g.post.send(packet{g.addrs[i], b.addrs[i], protocol, sport, port, mark})
					n.sent.Add(2)
				}
			}
		}
	}
}

// wait waits for a few rounds.
func (n *nursery) wait(b *birth) {
	n.t.Helper()
	from := b.rounds.Load()
	eventually(n.t, "packets are sent", func() bool { return b.rounds.Load() >= from+rounds })
}

// announce notes that from now on packets may be allowed.
func (b *birth) announce() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.announced = true
}

// through waits until every kind of packet that is allowed has come through.
func (n *nursery) through(b *birth) {
	n.t.Helper()
	ports := []uint16{openPort}
	if !b.guarded {
		ports = append(ports, closedPort)
	}
	for _, g := range n.targets {
		for _, protocol := range []int{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
			for _, port := range ports {
				for _, v4 := range []bool{true, false} {
					for inbound, endpoint := range map[bool]string{false: g.endpoint, true: b.name} {
						k := seenKey{b.id, inbound, endpoint, v4, protocol, port}
						eventually(n.t, fmt.Sprintf("%+v gets through", k), func() bool { _, ok := n.seen.Load(k); return ok })
					}
				}
			}
		}
	}
}

// bury ends a pod. When it returns the agent has taken its addresses back.
func (n *nursery) bury(b *birth, random *rand.Rand) {
	n.t.Helper()
	p := b.object(b.addrs...)
	finished := random.IntN(2) == 0
	if finished { // its object goes on to list the addresses, which are another's
		p.Status.Phase = []corev1.PodPhase{corev1.PodSucceeded, corev1.PodFailed}[random.IntN(2)]
		n.api.setPod(n.t, p)
	} else {
		n.api.deletePod(n.t, p)
	}
	eventually(n.t, "the addresses are taken back", func() bool { return n.released(b.node, b.addrs, false) })
	b.post.close()
	require.NoError(n.t, n.RemovePod("shop/"+b.name))
}

// startUnheard goes through the start of a pod that the agent hears of from the API server
// only, when it sends already.
func (n *nursery) startUnheard(b *birth, random *rand.Rand) {
	known := random.IntN(2) == 0
	if known {
		n.api.makePod(n.t, b.object())
	}
	n.live(b)
	stop := n.flood(b)
	defer stop()
	n.wait(b)
	if !known {
		n.api.makePod(n.t, b.object())
		n.wait(b)
	}
	b.announce()
	n.api.setPod(n.t, b.object(b.addrs...))
	n.through(b)
	n.wait(b)
	n.bury(b, random)
}

// run starts pods, several at a time.
func (n *nursery) run(count int, offset uint64, start func(*birth, *rand.Rand)) {
	n.t.Helper()
	var next atomic.Uint32
	var all sync.WaitGroup
	for place := range nurseries {
		random := rand.New(rand.NewPCG(*seed, offset+uint64(place)))
		all.Go(func() {
			for id := next.Add(1); int(id) <= count && !n.t.Failed(); id = next.Add(1) {
				start(n.newBirth(id, place, random), random)
			}
		})
	}
	all.Wait()
	n.noLeak("in all")
}

// TestFirstPacket starts pods that send from their first moment on, and that everybody
// sends to, long before the agent knows of them.
func TestFirstPacket(t *testing.T) {
	for i, topo := range topologies {
		t.Run(topo.String(), func(t *testing.T) {
			t.Parallel()
			lab.Require(t, needs...)
			n := newNursery(t, topo)
			n.startAll()
			begin, count := time.Now(), (*starts+1)/2
			n.run(count, uint64(i)<<8, n.startUnheard)
			n.result(fmt.Sprintf("first packets without the CNI plugin, %s", topo), "%d pods in %s, %d packets, %d let through rightly, %d leaked",
				count, time.Since(begin).Round(time.Second), n.sent.Load(), n.arrived.Load(), n.leaked.Load())
		})
	}
}
