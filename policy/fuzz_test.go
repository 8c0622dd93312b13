package policy

import (
	"encoding/json"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// FuzzPolicy sets any NetworkPolicy at all: it never panics, only isolates, and
// what it makes is well formed.
func FuzzPolicy(f *testing.F) {
	for _, s := range []string{
		`{}`,
		`{podSelector: {matchExpressions: [{key: app, operator: Foo}]}, policyTypes: [x]}`,
		`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, "::/0"]}}, {}], ports: [{port: 80, endPort: 90}, {port: http}]}]}`,
		`{podSelector: {}, egress: [{to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}], ports: [{port: http, protocol: UDP}, {endPort: 1}]}]}`,
	} {
		b, err := yaml.YAMLToJSON([]byte(s))
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p := &networkingv1.NetworkPolicy{}
		if json.Unmarshal(b, &p.Spec) != nil {
			return
		}
		p.Namespace, p.Name = "shop", "fuzz"
		m := mirror{x: NewIndex(node)}
		fleet(m.x)
		m.x.SetNetworkPolicy(p)
		m.flush(t)
		for _, s := range []string{"out>prom tcp/1", "prom>out udp/2", "out>x tcp/80", "web>web tcp/1"} {
			expect(t, m.state, s)
		}
		m.x.DeleteNetworkPolicy("shop", "fuzz")
		m.flush(t)
		require.Empty(t, m.state.Groups)
		requireIdle(t, m.x)
	})
}

// FuzzPod sets any Pod at all.
func FuzzPod(f *testing.F) {
	for _, p := range []*corev1.Pod{
		makePod("shop/p", "app=web", []string{"10.0.0.1", "::ffff:10.0.0.2"}, "http=1/TCP"),
		makePod("shop/p", "app=db", []string{"x", "::"}, "http=70000/", "=-1/X"),
	} {
		b, err := json.Marshal(p)
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p := &corev1.Pod{}
		if json.Unmarshal(b, p) != nil {
			return
		}
		p.Namespace, p.Name = "shop", "p"
		m := mirror{x: NewIndex(node)}
		fleet(m.x)
		m.x.SetNetworkPolicy(makePolicy(t, "shop/a", `{podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: http}]}], egress: [{ports: [{port: http}]}]}`))
		m.flush(t)
		before := m.state
		m.x.SetPod(p)
		m.flush(t)
		m.x.DeletePod("shop", "p")
		m.flush(t)
		require.Equal(t, before, m.state)
	})
}

// FuzzBlock checks the algebra of one block against its definition.
func FuzzBlock(f *testing.F) {
	f.Add("10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3")
	f.Add("::/0", "8000::/1", "ffff::/16", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
	f.Add("0.0.0.0/0", "255.255.255.255/32", "0.0.0.0/32", "255.255.255.255")
	f.Fuzz(func(t *testing.T, cidr, except1, except2, addr string) {
		a, err := netip.ParseAddr(addr)
		if err != nil || a.Zone() != "" || a.Is4In6() {
			return
		}
		b := &networkingv1.IPBlock{CIDR: cidr, Except: []string{except1, except2}}
		problems := 0
		block, ok := parseBlock(b, "", func(string, string, ...any) { problems++ })
		require.Equal(t, ok, problems == 0)
		if !ok {
			require.Empty(t, block)
			return
		}
		in := func(s string) bool { return netip.MustParsePrefix(s).Masked().Contains(a) }
		require.Equal(t, in(cidr) && !in(except1) && !in(except2), inPrefixes(block, a))
		require.Equal(t, block, mergePrefixes(block))
		require.Equal(t, inPrefixes(block, a), ir.PeerSet{Blocks: block}.Contains(a))
	})
}

// bytesChoice takes decisions from a fuzzer's bytes; 0 when they are used up.
type bytesChoice struct{ b []byte }

func (c *bytesChoice) IntN(n int) int {
	if len(c.b) == 0 {
		return 0
	}
	v := int(c.b[0])
	c.b = c.b[1:]
	return v % n
}

// FuzzEvents lets the fuzzer choose the events. Run it with -fuzzminimizetime 1x:
// the order of Go's maps varies the coverage, which keeps the fuzzer minimizing.
func FuzzEvents(f *testing.F) {
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 3))
		b := make([]byte, 2000)
		for i := range b {
			b[i] = byte(rng.IntN(256))
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		w := newWorld(&bytesChoice{slices.Clone(b)})
		w.run(t, min(40, 1+len(b)/30), 40, false)
	})
}
