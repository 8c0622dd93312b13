package soak

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/agent"
	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/policy"
	"github.com/portcullis-netpol/portcullis/policy/manifest"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// restartPolicies select shop/server and shop/client. Each allows the clients to reach
// port 7001 of shop/server, and nobody port 7002, each in another way. The first is
// that of testdata/layout-1.nft.
var restartPolicies = []string{
	`{podSelector: {}, policyTypes: [Egress, Ingress], egress: [{ports: [{protocol: UDP, port: 7001}, {port: 7001}]}], ingress: [{from: [{podSelector: {}}], ports: [{protocol: UDP, port: 7001}, {port: 7001}]}]}`,
	`{podSelector: {matchLabels: {app: server}}, ingress: [{from: [{ipBlock: {cidr: 10.244.0.0/16}}, {ipBlock: {cidr: "fd00:10:244::/48"}}], ports: [{protocol: UDP, port: 6000, endPort: 7001}, {port: 6000, endPort: 7001}]}]}`,
	`{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{protocol: UDP, port: churn}, {port: stay}]}]}`,
	`{podSelector: {}, policyTypes: [Egress, Ingress], egress: [{to: [{podSelector: {matchLabels: {app: server}}}], ports: [{protocol: UDP, port: churn}, {port: stay}]}], ingress: [{from: [{namespaceSelector: {}}], ports: [{protocol: UDP, port: churn}, {port: stay}]}]}`,
}

// restartsFiller is how many pods there are beside, each with a policy of its own:
// what makes a takeover take its time.
const restartsFiller = 100

// tableTime is about how long a takeover has two tables.
const tableTime = 12 * time.Millisecond

// TestRestarts kills an agent process again and again, while its manifests change and
// packets flow. The table that it takes over first, and now and then later, is of an
// earlier layout.
func TestRestarts(t *testing.T) {
	for i, topo := range topologies {
		t.Run(topo.String(), func(t *testing.T) {
			t.Parallel()
			lab.Require(t, needs...)
			r := newRestarts(t, topo, rand.New(rand.NewPCG(*seed, uint64(i))))
			begin := time.Now()
			all, talks := r.traffic()
			half := (*restarts + 1) / 2
			for range half {
				r.restart()
			}
			r.finish()
			for _, k := range talks {
				require.NoError(t, k.stop())
			}
			allowed, denied, dropped, passed := all.stop(t)
			r.result(fmt.Sprintf("restarts of the agent, %s", topo), "%d restarts (%d by SIGKILL, of those %d during a takeover; %d by SIGTERM; %d of tables of an earlier layout) and %d changes in %s: %d of %d allowed packets dropped, %d of %d forbidden packets passed, %d TCP connections kept",
				half, r.killed, r.interrupted, r.terminated, r.aged+1, r.changes, time.Since(begin).Round(time.Second), dropped, allowed, passed, denied, len(talks))
		})
	}
}

// restartsTest is a site with an agent process on node-1.
type restartsTest struct {
	*site
	random *rand.Rand
	dir    string
	// takeover is how long the first agent took from its start to its table.
	takeover                                       time.Duration
	killed, interrupted, terminated, aged, changes int
}

func newRestarts(t *testing.T, topo lab.Topology, random *rand.Rand) *restartsTest {
	r := &restartsTest{site: newSite(t, topo), random: random, dir: t.TempDir()}
	objects, err := os.ReadFile("testdata/restarts.yaml")
	require.NoError(t, err)
	var filler strings.Builder
	filler.WriteString("{apiVersion: v1, kind: Namespace, metadata: {name: filler}}\n")
	for i := range restartsFiller {
		fmt.Fprintf(&filler, "---\n{apiVersion: v1, kind: Pod, metadata: {name: f%d, namespace: filler, labels: {n: n%d}}, spec: {nodeName: node-1, containers: [{name: c, image: i}]}, status: {phase: Running, podIPs: [{ip: 10.244.1.%d}]}}\n---\n", i, i, 100+i)
		filler.WriteString(policyText("filler", fmt.Sprintf("f%d", i), fmt.Sprintf(`{podSelector: {matchLabels: {n: n%d}}, ingress: [{from: [{podSelector: {matchLabels: {n: n%d}}}], ports: [{port: %d}]}]}`, i, i+1, 1000+i)))
	}
	r.write("cluster.yaml", string(objects))
	r.write("filler.yaml", filler.String())
	r.change(0)
	r.populate(objects)
	r.age()
	r.aged = 0
	return r
}

// populate makes the pods of manifests.
func (r *restartsTest) populate(manifests []byte) {
	r.t.Helper()
	o, err := manifest.Decode("pods", manifests)
	require.NoError(r.t, err)
	for _, p := range o.Pods {
		var addrs []netip.Addr
		for _, ip := range p.Status.PodIPs {
			addrs = append(addrs, netip.MustParseAddr(ip.IP))
		}
		require.NoError(r.t, r.AddPod(p.Spec.NodeName, p.Namespace+"/"+p.Name, addrs))
	}
}

// age puts a table as an earlier release had it in the place of what there is, in the
// order of a takeover: packets may stand anywhere while rules go.
func (r *restartsTest) age() {
	r.t.Helper()
	old := r.tables()
	name := "portcullis-a"
	for c := byte('a'); slices.Contains(old, name); c++ {
		name = "portcullis-" + string(c)
	}
	layouts, err := filepath.Glob("testdata/layout-*.nft")
	require.NoError(r.t, err)
	require.NotEmpty(r.t, layouts)
	text, err := os.ReadFile(layouts[r.random.IntN(len(layouts))])
	require.NoError(r.t, err)
	r.nft("node-1", strings.Replace(string(text), "table inet portcullis-a", "table inet "+name, 1))
	k, ctx := r.look["node-1"], r.t.Context()
	require.NoError(r.t, k.Grace(ctx))
	for _, table := range old {
		base, err := k.BaseChains(ctx, table)
		require.NoError(r.t, err)
		unhook := nft.Batch{Table: table}
		for _, c := range base {
			unhook.Ops = append(unhook.Ops, nft.FlushChain{Name: c}, nft.DelChain{Name: c})
		}
		require.NoError(r.t, k.Send(ctx, unhook))
		require.NoError(r.t, k.Grace(ctx))
		require.NoError(r.t, k.Send(ctx, nft.Batch{Table: table, Ops: []nft.Op{nft.DelTable{}}}))
	}
	r.aged++
}

// write writes a manifest in one go.
func (r *restartsTest) write(name, text string) {
	r.t.Helper()
	require.NoError(r.t, os.WriteFile(filepath.Join(r.dir, ".new"), []byte(text), 0o600))
	require.NoError(r.t, os.Rename(filepath.Join(r.dir, ".new"), filepath.Join(r.dir, name)))
}

// change puts a policy in the place of the one that there is.
func (r *restartsTest) change(i int) {
	r.t.Helper()
	r.changes++
	r.write("policy.yaml", policyText("shop", "churn", restartPolicies[i]))
}

// traffic starts what has to come through, and what must not.
func (r *restartsTest) traffic() (all floods, talks []*talk) {
	server := []netip.Addr{netip.MustParseAddr("10.244.1.11"), netip.MustParseAddr("fd00:10:244:1::11")}
	for _, addr := range server {
		all = append(all, r.flood("shop/client", "shop/server", netip.AddrPortFrom(addr, 7001), true),
			r.flood("shop/client", "shop/server", netip.AddrPortFrom(addr, 7002), false))
		talks = append(talks, r.talk("shop/remote", "shop/server", netip.AddrPortFrom(addr, 7001)))
	}
	return all, talks
}

// restart starts an agent, changes policies under its hands and ends it, at a moment
// that may be any of its life.
func (r *restartsTest) restart() {
	r.t.Helper()
	begin := time.Now()
	p := r.spawn(r.t, "node-1", r.dir)
	switch {
	case r.takeover == 0:
		p.log.wait(r.t, "table in force")
		r.takeover = time.Since(begin)
		r.t.Logf("takeover %s\n%s", r.takeover, p.log)
	case r.random.IntN(3) == 0: // in its later life
		p.log.wait(r.t, "table in force")
		for range r.random.IntN(4) {
			r.change(r.random.IntN(len(restartPolicies)))
			time.Sleep(time.Duration(r.random.Int64N(int64(50 * time.Millisecond))))
		}
	case r.random.IntN(3) == 0: // from its start to a little after its takeover
		r.change(r.random.IntN(len(restartPolicies)))
		time.Sleep(time.Duration(1.3 * r.random.Float64() * float64(r.takeover)))
	default: // while there are two tables
		r.change(r.random.IntN(len(restartPolicies)))
		before := r.tables()
		eventually(r.t, "a takeover begins\n"+p.log.String(), func() bool { return !slices.Equal(before, r.tables()) })
		time.Sleep(time.Duration(r.random.Int64N(int64(tableTime))))
	}
	if r.random.IntN(4) == 0 {
		r.terminated++
		p.end(r.t, syscall.SIGTERM)
	} else {
		r.killed++
		p.end(r.t, syscall.SIGKILL)
	}
	tables := r.tables()
	require.NotEmpty(r.t, tables, "nothing is in force")
	if len(tables) > 1 {
		r.interrupted++
	}
	if r.random.IntN(6) == 0 {
		r.age()
	}
}

// tables returns the names of the tables on node-1.
func (r *restartsTest) tables() []string {
	r.t.Helper()
	tables, err := r.look["node-1"].Tables(r.t.Context())
	require.NoError(r.t, err)
	return tables
}

// finish lets an agent live, and compares what it makes of the last state with what
// it should be.
func (r *restartsTest) finish() {
	r.t.Helper()
	p := r.spawn(r.t, "node-1", r.dir)
	r.change(len(restartPolicies) - 1)
	revision, err := agent.Revision(r.dir)
	require.NoError(r.t, err)
	p.log.wait(r.t, "in force", revision)
	objects, err := manifest.Load(r.dir)
	require.NoError(r.t, err)
	x := policy.NewIndex("node-1")
	for _, o := range objects.Namespaces {
		x.SetNamespace(o)
	}
	for _, o := range objects.Pods {
		x.SetPod(o)
	}
	for _, o := range objects.Policies {
		x.SetNetworkPolicy(o)
	}
	require.Equal(r.t, []nft.Difference(nil), r.differences("node-1", x))
	p.end(r.t, syscall.SIGTERM)
	require.Empty(r.t, p.log.find("level=ERROR"))
}
