package control

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/policy"
)

// TestCluster: a cluster has what its size says, each address once, and most policies
// select no local pod.
func TestCluster(t *testing.T) {
	s := Size{5000, 1000, 20, 0}
	c := newCluster(s)
	x := policy.NewIndex(node)
	addrs := map[string]bool{}
	count := map[resource]int{}
	big, wide := 0, map[string]bool{}
	c.objects(func(chunk []any) {
		for _, o := range chunk {
			count[resourceOf(o)]++
			switch o := o.(type) {
			case *corev1.Namespace:
				wide[o.Name] = o.Labels["wide"] == "yes"
				x.SetNamespace(o)
			case *corev1.Pod:
				for _, ip := range o.Status.PodIPs {
					require.False(t, addrs[ip.IP], ip.IP)
					addrs[ip.IP] = true
				}
				if o.Namespace == "ns-0" {
					big++
				}
				x.SetPod(o)
			case *networkingv1.NetworkPolicy:
				require.Empty(t, x.SetNetworkPolicy(o), o.Name)
			}
		}
	})
	require.Equal(t, map[resource]int{pods: s.Pods + s.Local, namespaces: c.namespaces, policies: s.Policies}, count)
	require.Len(t, addrs, 2*(s.Pods+s.Local))
	require.Equal(t, c.big, big)
	x.Flush()
	inForce := map[string]bool{}
	for _, g := range x.State().Groups {
		for _, p := range g.Policies {
			inForce[p] = true
		}
	}
	require.InDelta(t, 3.5*float64(s.Local), len(inForce), float64(s.Local))
	require.Equal(t, c.policy(17), newCluster(s).policy(17))
	require.Equal(t, c.pod(17), newCluster(s).pod(17))
}

// silent is a Kernel that takes everything.
type silent struct{ nft.Kernel }

func (silent) Send(context.Context, nft.Batch) error { return nil }
func (silent) Grace(context.Context) error           { return nil }

func TestCounter(t *testing.T) {
	told := 0
	c := &counter{Kernel: silent{}, sent: func(nft.Batch) { told++ }}
	set := &nft.Set{Name: "peers"}
	require.NoError(t, c.Send(t.Context(), nft.Batch{Table: "t", Ops: []nft.Op{
		nft.AddSet{Set: set}, nft.AddChain{Chain: &nft.Chain{Name: "c"}}, nft.AddRule{Chain: "c"},
		nft.AddElements{Set: set, Elements: []nft.Element{{Key: "abcd"}, {Key: "efgh"}}},
	}}))
	before := c.now()
	require.NoError(t, c.Send(t.Context(), nft.Batch{Table: "t"}))
	require.NoError(t, c.Send(t.Context(), nft.Batch{Table: "t", Ops: []nft.Op{nft.DelElements{Set: set, Elements: []nft.Element{{Key: "abcd"}}}}}))
	require.NoError(t, c.Grace(t.Context()))
	have := c.now().minus(before)
	have.Sending, have.Waiting = 0, 0
	// Begin and end; header, table, set, list, element with key and value.
	bytes := 2*20 + 20 + 8 + 12 + 8 + 16
	require.Equal(t, traffic{Batches: 1, Messages: 1, Bytes: bytes, Graces: 1, Elements: 1}, have)
	before.Sending = 0
	before.Bytes = 0
	require.Equal(t, traffic{Batches: 1, Messages: 4, Sets: 1, Chains: 1, Rules: 1, Elements: 2}, before)
	require.Equal(t, 2, told)

	ranges := &nft.Set{Name: "blocks", Interval: true}
	before = c.now()
	require.NoError(t, c.Send(t.Context(), nft.Batch{Table: "t", Ops: []nft.Op{
		nft.AddSet{Set: ranges}, nft.AddElements{Set: ranges}, nft.DelElements{Set: ranges}, nft.DelSet{Name: "blocks"}, nft.DelSet{Name: "peers"},
	}}))
	require.Equal(t, 4, c.now().minus(before).Intervals)
}

// TestMatch finds the commits of events, and does not count for those that had none.
func TestMatch(t *testing.T) {
	begin := time.Now()
	at := func(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
	whole, hasty := netip.MustParseAddr("10.126.0.1"), netip.MustParseAddr("10.126.0.2")
	var r churnResult
	r.match(map[netip.Addr][]event{
		whole: {{0, at(0)}, {1, at(100)}, {2, at(200)}},
		hasty: {{0, at(0)}, {1, at(5)}},
	}, []commit{
		{whole, true, at(1)}, {whole, false, at(102)}, {whole, true, at(103)}, {whole, false, at(205)},
		{hasty, true, at(10)},
	})
	require.Equal(t, []float64{1, 3, 5}, r.Delays)
	require.Equal(t, 2, r.Coalesced)
	require.Equal(t, 1, r.Backlog)
}

func TestSummarize(t *testing.T) {
	begin := time.Now()
	at := func(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
	lengths, most := summarize([]interval{{at(10), at(40)}, {at(0), at(20)}, {at(15), at(16)}, {at(40), at(41)}})
	require.Equal(t, []float64{20, 30, 1, 1}, lengths)
	require.Equal(t, 3, most)
	_, most = summarize([]interval{{at(0), at(10)}, {at(10), at(20)}})
	require.Equal(t, 1, most)
}

// TestTrain tells when packets began to come through, and ceased to.
func TestTrain(t *testing.T) {
	begin := time.Now().Add(-time.Minute)
	at := func(s int) time.Time { return begin.Add(time.Duration(s) * time.Second) }
	tr := &train{last: 2, arrivals: []int{1, 2}}
	for i := range 6 {
		tr.sent = append(tr.sent, at(i))
	}
	d, ok := tr.openedAfter(at(0))
	require.True(t, ok)
	require.Equal(t, time.Second, d)
	_, ok = tr.openedAfter(at(2))
	require.False(t, ok)
	d, ok = tr.closedAfter(at(1))
	require.True(t, ok)
	require.Equal(t, 2*time.Second, d)
	tr.last = 5
	_, ok = tr.closedAfter(at(1))
	require.False(t, ok)
}
