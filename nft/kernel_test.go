package nft

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

var testConfigs = map[string]Config{
	"drop":           {},
	"reject to node": {Deny: DenyReject, PodToNode: true},
	"everything":     everything,
}

// everything has all that a Config can turn on, and blocks that end at a byte and
// between two.
var everything = Config{Deny: DenyReject, PodToNode: true, Midstream: true, Bridged: true, LogGroup: 65535, PodCIDRs: []netip.Prefix{
	block("10.244.1.0/24"), block("10.244.2.128/25"), block("172.16.0.0/12"), block("192.0.2.7/32"), block("128.0.0.0/1"),
	block("fd00:10:244:1::/64"), block("fd00:10:245::/47"), block("fd00::7/128"),
}}

// podBlocks are those that shop and the random states have their pods from.
var podBlocks = []netip.Prefix{block("10.244.1.0/24"), block("fd00::/64"), block("fd00:10:244:1::/64")}

// TestTextAndNetlinkAgree loads one table with nft and one through netlink, and
// compares what the kernel holds and what nft lists. Then it loads the listing.
func TestTextAndNetlinkAgree(t *testing.T) {
	ctx := context.Background()
	for label, cfg := range testConfigs {
		t.Run(label, func(t *testing.T) {
			ours, theirs, again := newNetNS(t), newNetNS(t), newNetNS(t)
			e := NewEnforcer(cfg, openTestKernel(t, ours))
			require.NoError(t, e.Takeover(ctx, shop()))
			want, err := Build(cfg, e.Table(), shop())
			require.NoError(t, err)
			require.NoError(t, e.bar(ctx, nil, time.Hour))
			want.Chains = append(want.Chains, CutChains(cfg)...)
			want.sort()

			runNFT(t, theirs, Text(want), "-c", "-f", "-")
			runNFT(t, theirs, Text(want), "-f", "-")
			have, _, err := openTestKernel(t, theirs).Read(ctx, e.Table())
			require.NoError(t, err)
			require.Empty(t, Diff(want, have))
			require.Equal(t, canonicalJSON(t, runNFT(t, theirs, "", "-j", "list", "ruleset")), canonicalJSON(t, runNFT(t, ours, "", "-j", "list", "ruleset")))

			runNFT(t, again, runNFT(t, ours, "", "list", "ruleset"), "-f", "-")
			have, _, err = openTestKernel(t, again).Read(ctx, e.Table())
			require.NoError(t, err)
			require.Empty(t, Diff(want, have))
		})
	}
}

// canonicalJSON drops what depends on history and sorts what has no order.
func canonicalJSON(t *testing.T, text string) []string {
	var list struct {
		Nftables []map[string]map[string]any `json:"nftables"`
	}
	require.NoError(t, json.Unmarshal([]byte(text), &list))
	var out []string
	for _, object := range list.Nftables {
		for kind, o := range object {
			if kind == "metainfo" {
				continue
			}
			if kind != "rule" { // the order of rules within a chain counts
				delete(o, "handle")
			}
			if elements, ok := o["elem"].([]any); ok {
				var texts []string
				for _, e := range elements {
					b, err := json.Marshal(e)
					require.NoError(t, err)
					texts = append(texts, string(b))
				}
				slices.Sort(texts)
				o["elem"] = texts
			}
			if kind == "rule" {
				delete(o, "handle")
			}
			b, err := json.Marshal(o)
			require.NoError(t, err)
			out = append(out, kind+" "+string(b))
		}
	}
	slices.SortStableFunc(out, func(a, b string) int { return strings.Compare(objectName(a), objectName(b)) })
	return out
}

// objectName returns the part of a canonical line by which lines are ordered:
// rules keep their order within a chain.
func objectName(line string) string {
	var o struct{ Chain, Name string }
	kind, body, _ := strings.Cut(line, " ")
	_ = json.Unmarshal([]byte(body), &o)
	return kind + " " + o.Chain + " " + o.Name
}

// TestVerifySeesEveryChange changes single things behind the enforcer's back.
func TestVerifySeesEveryChange(t *testing.T) {
	ctx := context.Background()
	for _, change := range []string{
		"delete element inet portcullis-a self4 { 10.244.1.2 . 10.244.1.2 }",
		"add element inet portcullis-a u_p-web_6 { fd00::9 }",
		"delete element inet portcullis-a u_p-world_c4 { 128.0.0.0/1 }",
		"add element inet portcullis-a u_p-world_c4 { 10.0.0.0/8 }",
		"delete element inet portcullis-a g_gi-api_ports { tcp . 80 }",
		"delete element inet portcullis-a g_gi-api_tcp { 81-90 }; add element inet portcullis-a g_gi-api_tcp { 81-90 : accept }",
		"delete element inet portcullis-a in4 { 10.244.1.3 }; add element inet portcullis-a in4 { 10.244.1.3 : accept }",
		"insert rule inet portcullis-a egress accept",
		"add rule inet portcullis-a deny-ingress accept",
		"add rule inet portcullis-a deny-egress limit rate over 1/second accept",
		"insert rule inet portcullis-a audit-egress log prefix \"x\" level info flags all",
		"insert rule inet portcullis-a audit-egress log group 7 queue-threshold 3",
		"insert rule inet portcullis-a deny-cut update @deniedeg4 { ip saddr timeout 1h counter }",
		"insert rule inet portcullis-a deny-cut update @deniedeg4 { ip saddr limit rate 1/second }",
		"flush chain inet portcullis-a deny-cut; add rule inet portcullis-a deny-cut drop",
		"add set inet portcullis-a extra { type ipv4_addr; size 5; flags dynamic,timeout; }",
		"insert rule inet portcullis-a g_gi-db_shop/deny ip saddr 10.0.0.0/8 counter accept",
		"insert rule inet portcullis-a g_gi-db_shop/deny ip saddr != @self accept; ",
		"flush chain inet portcullis-a ingress",
		"flush chain inet portcullis-a u_p-web_in",
		"add chain inet portcullis-a extra",
		"add set inet portcullis-a extra { type ipv4_addr; timeout 5s; }",
		"add chain inet portcullis-a extra { type filter hook output priority 0; policy drop; }",
		"delete table inet portcullis-a",
		"flush ruleset",
		"add table inet portcullis-old",
	} {
		t.Run(change, func(t *testing.T) {
			change := strings.Replace(change, "ip saddr != @self accept; ", "ip saddr != @isoin4 accept", 1)
			ns := newNetNS(t)
			e := NewEnforcer(Config{LogGroup: 7}, openTestKernel(t, ns))
			require.NoError(t, e.Takeover(ctx, shop()))
			runNFT(t, ns, change, "-f", "-")
			d, err := e.Verify(ctx, shop())
			require.NoError(t, err)
			require.NotEmpty(t, d)
			t.Log(d[0])

			require.NoError(t, e.Repair(ctx, shop()))
			d, err = e.Verify(ctx, shop())
			require.NoError(t, err)
			require.Empty(t, d)
			require.Equal(t, 1, strings.Count(runNFT(t, ns, "", "list", "tables"), "\n"))
		})
	}
}

// TestTakeoverOfUnknownLayout finds tables under our names that are made of other
// things, and leaves alone what is not ours.
func TestTakeoverOfUnknownLayout(t *testing.T) {
	ctx := context.Background()
	ns := newNetNS(t)
	foreign := "table ip portcullis-a { chain x { type filter hook input priority 0; }; }\ntable inet other { chain x { type filter hook forward priority 0; }; }\n"
	runNFT(t, ns, foreign+`
		table inet portcullis-a {
			set s {
				type ipv4_addr . inet_service
				flags interval, timeout
				elements = { 10.0.0.0/8 . 1-9 }
			}
			counter hits { packets 0 bytes 0; }
			chain y {
				ip daddr { 1.1.1.1, 2.2.2.2 } counter name hits drop
			}
			chain in {
				type filter hook input priority 0; policy drop;
				jump y
				ip saddr . th dport @s accept
			}
			chain nat {
				type nat hook postrouting priority 100;
				masquerade
			}
		}
		table inet portcullis-b {
			chain out {
				type filter hook output priority 0;
				limit rate 5/second accept
			}
		}`, "-f", "-")
	k := openTestKernel(t, ns)
	e := NewEnforcer(Config{}, k)
	require.NoError(t, e.Takeover(ctx, shop()))
	require.Equal(t, "portcullis-c", e.Table())
	require.NoError(t, e.Takeover(ctx, shop()))
	require.Equal(t, "portcullis-a", e.Table())
	require.Equal(t, "table inet other\ntable inet portcullis-a\ntable ip portcullis-a", sortedLines(runNFT(t, ns, "", "list", "tables")))

	require.NoError(t, Cleanup(ctx, k))
	require.Equal(t, "table inet other\ntable ip portcullis-a", sortedLines(runNFT(t, ns, "", "list", "tables")))
}

func sortedLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// TestApplyInKernel carries random changes out in the kernel and in a Fake and
// compares both with what they should be.
func TestApplyInKernel(t *testing.T) {
	ctx := context.Background()
	k, f := openTestKernel(t, newNetNS(t)), NewFake()
	inKernel, inFake := NewEnforcer(Config{}, k), NewEnforcer(Config{}, f)
	s := randomState(rand.New(rand.NewPCG(0, 0)))
	require.NoError(t, inKernel.Takeover(ctx, s))
	require.NoError(t, inFake.Takeover(ctx, s))
	rebuilt := 0
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 4))
		var next ir.State
		switch seed % 3 {
		case 0:
			next = podEvent(r, s)
		case 1:
			next = policyEvent(r, s)
		default:
			next = nextState(r, s)
		}
		for _, e := range []*Enforcer{inKernel, inFake} {
			if err := applyAll(ctx, e, between(s, next)); err != nil {
				require.ErrorIs(t, err, ErrUncertain)
				require.NoError(t, e.Repair(ctx, next))
				rebuilt++
			}
			requireVerified(t, e, next)
		}
		s = next
	}
	require.Less(t, rebuilt, 2*20)
	have, _, err := k.Read(ctx, inKernel.Table())
	require.NoError(t, err)
	fake, _, err := f.Read(ctx, inFake.Table())
	require.NoError(t, err)
	require.Empty(t, Diff(fake, have))
}

// TestFakeAndKernelAgree sends the same batches to both.
func TestFakeAndKernelAgree(t *testing.T) {
	ctx := context.Background()
	set := &Set{Name: "u_s", Type: TypeAddr4}
	ranges := &Set{Name: "u_r", Type: TypeAddr4, Interval: true}
	ports := &Set{Name: "g_m", Type: TypeProtoPort, Map: true}
	one := []Element{addrElement(addr("10.0.0.1"))}
	at := func(port uint16, v Verdict) []Element {
		key := protoPortKey(6, port)
		return []Element{{Key: key, Last: key, Verdict: v}}
	}
	jump := Verdict{VerdictJump, "u_c"}
	prepare := Batch{"portcullis-a", []Op{
		AddTable{}, AddSet{set}, AddSet{ranges}, AddSet{ports}, AddChain{&Chain{Name: "u_c"}}, AddChain{&Chain{Name: "g_c"}},
		AddChain{&Chain{Name: "base", Hook: HookForward}}, AddRule{"u_c", Rule{Match: []Match{In{FieldSaddr4, "u_s"}}, Action: Verdict{Kind: VerdictAccept}}},
		AddRule{"g_c", Rule{Action: Vmap{FieldProtoPort, "g_m"}}}, AddElements{ports, at(80, jump)}, AddElements{set, one},
		AddElements{ranges, []Element{blockElement(block("10.0.0.0/8")), blockElement(block("255.0.0.0/8"))}},
	}}
	for name, tc := range map[string]struct {
		ops []Op
		ok  bool
	}{
		"add an element again":              {[]Op{AddElements{set, one}}, true},
		"add and delete":                    {[]Op{AddElements{ports, at(81, jump)}, DelElements{ports, at(81, jump)}}, true},
		"replace an element":                {[]Op{DelElements{ports, at(80, jump)}, AddElements{ports, at(80, Verdict{Kind: VerdictAccept})}}, true},
		"another verdict for a key":         {[]Op{AddElements{ports, at(80, Verdict{Kind: VerdictAccept})}}, false},
		"delete a missing element":          {[]Op{DelElements{set, []Element{addrElement(addr("10.0.0.2"))}}}, false},
		"delete an element of no set":       {[]Op{DelElements{&Set{Name: "none", Type: TypeAddr4}, one}}, false},
		"add to no set":                     {[]Op{AddElements{&Set{Name: "none", Type: TypeAddr4}, one}}, false},
		"a range within another":            {[]Op{AddElements{ranges, []Element{blockElement(block("10.1.0.0/16"))}}}, false},
		"a range around another":            {[]Op{AddElements{ranges, []Element{blockElement(block("8.0.0.0/5"))}}}, false},
		"a range into the last":             {[]Op{AddElements{ranges, []Element{blockElement(block("255.255.255.255/32"))}}}, false},
		"adjacent ranges":                   {[]Op{AddElements{ranges, []Element{blockElement(block("11.0.0.0/8")), blockElement(block("9.0.0.0/8"))}}}, true},
		"delete the last range":             {[]Op{DelElements{ranges, []Element{blockElement(block("255.0.0.0/8"))}}}, true},
		"jump to a missing chain":           {[]Op{AddRule{"g_c", Rule{Action: Verdict{VerdictJump, "none"}}}}, false},
		"an element to a missing chain":     {[]Op{AddElements{ports, at(82, Verdict{VerdictGoto, "none"})}}, false},
		"jump to a base chain":              {[]Op{AddRule{"g_c", Rule{Action: Verdict{VerdictJump, "base"}}}}, false},
		"a rule in a missing chain":         {[]Op{AddRule{"none", Rule{Action: Verdict{Kind: VerdictDrop}}}}, false},
		"a rule with a missing set":         {[]Op{AddRule{"g_c", Rule{Match: []Match{In{FieldSaddr4, "none"}}, Action: Verdict{Kind: VerdictDrop}}}}, false},
		"delete a chain that is jumped to":  {[]Op{FlushChain{"u_c"}, DelChain{"u_c"}}, false},
		"delete a set in use":               {[]Op{DelSet{"u_s"}}, false},
		"delete a map in use":               {[]Op{DelSet{"g_m"}}, false},
		"delete in order":                   {[]Op{FlushChain{"g_c"}, DelSet{"g_m"}, DelChain{"g_c"}, FlushChain{"u_c"}, DelSet{"u_s"}, DelChain{"u_c"}}, true},
		"delete in the wrong order":         {[]Op{FlushChain{"u_c"}, DelChain{"u_c"}, FlushChain{"g_c"}, DelSet{"g_m"}}, false},
		"delete the jump, then the chain":   {[]Op{DelElements{ports, at(80, jump)}, FlushChain{"u_c"}, DelChain{"u_c"}}, true},
		"flush a missing chain":             {[]Op{FlushChain{"none"}}, false},
		"delete a missing chain":            {[]Op{DelChain{"none"}}, false},
		"delete a missing set":              {[]Op{DelSet{"none"}}, false},
		"the table again":                   {[]Op{AddTable{}}, false},
		"delete the table":                  {[]Op{DelTable{}}, true},
		"delete the table twice":            {[]Op{DelTable{}, DelTable{}}, false},
		"half of a batch":                   {[]Op{DelElements{set, one}, DelSet{"none"}}, false},
		"a jump from a base chain and away": {[]Op{AddRule{"base", Rule{Action: Verdict{VerdictJump, "g_c"}}}, FlushChain{"base"}, DelChain{"base"}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			f, k := NewFake(), openTestKernel(t, newNetNS(t))
			var tables []string
			for _, kern := range []Kernel{f, k} {
				require.NoError(t, kern.Send(ctx, prepare))
				err := kern.Send(ctx, Batch{"portcullis-a", tc.ops})
				if tc.ok {
					require.NoError(t, err, "%T", kern)
				} else {
					require.ErrorIs(t, err, ErrUncertain, "%T", kern)
				}
				have, complete, err := kern.Read(ctx, "portcullis-a")
				if errors.Is(err, ErrNotExist) {
					tables = append(tables, "none")
					continue
				}
				require.NoError(t, err)
				require.True(t, complete)
				tables = append(tables, Text(have))
			}
			require.Equal(t, tables[0], tables[1])
		})
	}
}

// TestLargeLoads loads 100,000 elements and 20,000 rules without loss, and reads
// them back.
func TestLargeLoads(t *testing.T) {
	ctx := context.Background()
	e := NewEnforcer(Config{}, openTestKernel(t, newNetNS(t)))
	s := bigState(100, 100_000, 200)
	require.NoError(t, e.Takeover(ctx, s)) // verifies
	d, err := e.Verify(ctx, s)
	require.NoError(t, err)
	require.Empty(t, d)
	s.PeerSets[0].Addrs = s.PeerSets[0].Addrs[1:]
	d, err = e.Verify(ctx, s)
	require.NoError(t, err)
	require.Len(t, d, 1, "one element too much")
}

// TestManyRulesInOneBatch sends 20,000 rules at once where the socket takes them.
func TestManyRulesInOneBatch(t *testing.T) {
	ctx := context.Background()
	k := openTestKernel(t, newNetNS(t))
	const n = 20_000
	b := Batch{Table: "portcullis-a", Ops: []Op{AddTable{}, AddChain{&Chain{Name: "g_many"}}}}
	for i := range n {
		b.Ops = append(b.Ops, AddRule{"g_many", Rule{Match: []Match{Protocol(i%250 + 1)}, Action: Verdict{Kind: VerdictAccept}, Comment: fmt.Sprint(i)}})
	}
	err := k.Send(ctx, b)
	if errors.Is(err, ErrTooBig) {
		require.NotZero(t, unix.Getuid()|inChildNamespace(t), "root of the first user namespace gets buffers of any size")
		var units []unit
		for _, op := range b.Ops {
			units = append(units, unit{op})
		}
		for _, b := range batches(k.Limits(), b.Table, units) {
			require.NoError(t, k.Send(ctx, b))
		}
	} else {
		require.NoError(t, err)
	}
	have, _, err := k.Read(ctx, "portcullis-a")
	require.NoError(t, err)
	require.Len(t, have.Chains[0].Rules, n)
	for i, r := range have.Chains[0].Rules {
		require.Equal(t, fmt.Sprint(i), r.Comment)
	}
}

// bigState has so many endpoints' groups, members of one set and further sets.
func bigState(groups, members, sets int) ir.State {
	var s ir.State
	first := netip.MustParseAddr("10.0.0.0")
	a := first
	big := ir.PeerSet{ID: "p-big", Selects: true}
	for range members {
		a = a.Next()
		big.Addrs = append(big.Addrs, a)
	}
	s.PeerSets = append(s.PeerSets, big)
	for i := range sets {
		s.PeerSets = append(s.PeerSets, ir.PeerSet{ID: ir.PeerSetID(fmt.Sprintf("p-%d", i)), Selects: true, Addrs: big.Addrs[:min(members, 10)]})
	}
	e := netip.MustParseAddr("172.16.0.0")
	for i := range groups {
		e = e.Next()
		g := np(ir.Ingress, fmt.Sprintf("gi-%d", i), []string{fmt.Sprintf("ns/policy-%d", i)},
			rule(ir.TCP, 80, 80, "p-big"), rule(ir.TCP, 81, 99, fmt.Sprintf("p-%d", i%sets)), rule(ir.UDP, 0, 65535, "*"))
		s.Groups = append(s.Groups, g)
		s.Endpoints = append(s.Endpoints, ir.Endpoint{Addr: e, Pod: fmt.Sprintf("ns/pod-%d", i), Ingress: g.ID})
	}
	return sorted(s)
}
