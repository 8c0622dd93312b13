package nft

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

func addr(s string) netip.Addr    { return netip.MustParseAddr(s) }
func block(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, addr(s))
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

func np(d ir.Direction, id string, policies []string, rules ...ir.Rule) ir.Group {
	return ir.Group{ID: ir.GroupID(id), Direction: d, Policies: policies, Steps: []ir.Step{{Tier: ir.TierNetworkPolicy, Miss: ir.Deny, Rules: rules}}}
}

func rule(p ir.Protocol, first, last uint16, set string) ir.Rule {
	r := ir.Rule{Action: ir.Accept, Protocol: p, First: first, Last: last, Peers: ir.Peers{Set: ir.PeerSetID(set)}}
	if set == "*" {
		r.Peers = ir.Peers{Any: true}
	}
	return r
}

// shop has everything that the layout knows: ranges, whole protocols, any port,
// any peer, blocks that end at the top of their family, both families.
func shop() ir.State {
	return ir.State{
		Endpoints: []ir.Endpoint{
			{Addr: addr("10.244.1.2"), Pod: "shop/api", Ingress: "gi-api", Egress: "ge-api"},
			{Addr: addr("10.244.1.3"), Pod: "shop/db", Ingress: "gi-db"},
			{Addr: addr("10.244.1.4"), Pod: "shop/free"},
			{Addr: addr("fd00:10:244:1::2"), Pod: "shop/api", Ingress: "gi-api", Egress: "ge-api"},
			{Addr: addr("fd00:10:244:1::3"), Pod: "shop/db", Ingress: "gi-db"},
		},
		Groups: []ir.Group{
			np(ir.Egress, "ge-api", []string{"shop/out"},
				rule(ir.TCP, 5432, 5432, "p-db"),
				rule(ir.TCP, 8000, 65535, "p-world"),
				rule(ir.UDP, 53, 53, "*"),
				rule(ir.SCTP, 0, 65535, "p-db")),
			np(ir.Ingress, "gi-api", []string{"shop/in", "shop/monitoring"},
				rule(ir.TCP, 0, 79, "p-web"),
				rule(ir.TCP, 80, 80, "p-both"),
				rule(ir.TCP, 81, 90, "p-both"),
				rule(ir.TCP, 9090, 9090, "p-web"),
				rule(ir.UDP, 0, 65535, "*"),
				rule(ir.AnyProtocol, 0, 0, "p-web")),
			np(ir.Ingress, "gi-db", []string{"shop/deny"}),
		},
		PeerSets: []ir.PeerSet{
			{ID: "p-both", About: `pods "app=web" of shop, 192.0.2.0/24`, Selects: true, Addrs: addrs("10.244.1.4", "10.244.2.2", "fd00:10:244:2::2"), Blocks: []netip.Prefix{block("192.0.2.0/24"), block("2001:db8::/32")}},
			{ID: "p-db", Selects: true, Addrs: addrs("10.244.1.3", "fd00:10:244:1::3")},
			{ID: "p-web", Selects: true, Addrs: addrs("10.244.1.4", "10.244.2.2")},
			{ID: "p-world", Blocks: []netip.Prefix{block("128.0.0.0/1"), block("8000::/1")}},
		},
	}
}

// probes are packets between all addresses of a state and some others, to ports
// at the borders of all ranges.
func probes(s ir.State) (out []ir.Packet) {
	ends := addrs("10.244.1.200", "fd00:10:244:1::200", "10.244.2.2", "192.0.2.0", "192.0.2.255", "192.0.3.0", "255.255.255.255", "fd00:10:244:2::2", "2001:db8::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
	for _, e := range s.Endpoints {
		ends = append(ends, e.Addr)
	}
	for _, p := range s.PeerSets {
		ends = append(ends, p.Addrs...)
	}
	slices.SortFunc(ends, netip.Addr.Compare)
	ends = slices.Compact(ends)
	ports := map[portAt]bool{{1, 0}: true, {58, 0}: true, {47, 0}: true}
	for _, g := range s.Groups {
		for _, step := range g.Steps {
			for _, at := range borders(step.Rules) {
				if at.protocol != ir.AnyProtocol {
					ports[at] = true
				}
			}
		}
	}
	for _, src := range ends {
		for _, dst := range ends {
			if src.Is4() != dst.Is4() {
				continue
			}
			for at := range ports {
				out = append(out, ir.Packet{Src: src, Dst: dst, Protocol: at.protocol, DstPort: at.port})
			}
		}
	}
	return out
}

func packet(p ir.Packet) Packet {
	return Packet{Src: p.Src, Dst: p.Dst, Protocol: uint8(p.Protocol), DstPort: p.DstPort, CTState: CTNew, TCPFlags: TCPSyn}
}

// randomState makes a small state out of a pool of groups and sets that any two
// states of one seed share in part.
func randomState(r *rand.Rand) ir.State {
	var s ir.State
	pods := make([]netip.Addr, 8)
	for i := range pods {
		pods[i] = addr(fmt.Sprintf("10.244.1.%d", i+1))
		if i%4 == 3 {
			pods[i] = addr(fmt.Sprintf("fd00::%d", i+1))
		}
	}
	all := map[ir.PeerSetID]ir.PeerSet{}
	for i := range 4 {
		p := ir.PeerSet{ID: ir.PeerSetID(fmt.Sprintf("p-%d", i)), Selects: true}
		for _, a := range pods {
			if r.IntN(2) == 0 {
				p.Addrs = append(p.Addrs, a)
			}
		}
		slices.SortFunc(p.Addrs, netip.Addr.Compare)
		all[p.ID] = p
	}
	all["p-block"], all["p-few"] = blockSet, fewSet
	pool := groupPool()
	used := map[ir.GroupID]ir.Group{}
	for _, a := range pods[:5] {
		if r.IntN(8) == 0 {
			continue
		}
		e := ir.Endpoint{Addr: a, Pod: "ns/" + a.String()}
		if g := pool[r.IntN(len(pool))]; g.Direction == ir.Ingress {
			e.Ingress, used[g.ID] = g.ID, g
		}
		if g := pool[r.IntN(len(pool))]; g.Direction == ir.Egress {
			e.Egress, used[g.ID] = g.ID, g
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	sets := map[ir.PeerSetID]bool{}
	for _, g := range used {
		s.Groups = append(s.Groups, g)
		for id := range setsOf(g) {
			sets[id] = true
		}
	}
	for id := range sets {
		s.PeerSets = append(s.PeerSets, all[id])
	}
	slices.SortFunc(s.Endpoints, ir.CompareEndpoints)
	slices.SortFunc(s.Groups, ir.CompareGroups)
	slices.SortFunc(s.PeerSets, ir.ComparePeerSets)
	return s
}

var fewSet = ir.PeerSet{ID: "p-few", Blocks: []netip.Prefix{block("10.244.1.4/31"), block("fd00::8/128")}}

var blockSet = ir.PeerSet{ID: "p-block", Blocks: []netip.Prefix{block("10.244.1.4/31"), block("fd00::/16")}}

// groupPool returns groups that share sets between ports and directions.
func groupPool() (out []ir.Group) {
	for i, d := range []ir.Direction{ir.Ingress, ir.Egress} {
		id := func(n int) string { return fmt.Sprintf("g%s-%d", []string{"i", "e"}[i], n) }
		out = append(out,
			np(d, id(0), []string{"ns/deny"}),
			np(d, id(1), []string{"ns/a"}, rule(ir.TCP, 80, 80, "p-0")),
			np(d, id(2), []string{"ns/b"}, rule(ir.TCP, 80, 80, "p-1"), rule(ir.TCP, 81, 82, "p-0")),
			np(d, id(3), []string{"ns/c"}, rule(ir.TCP, 80, 80, "p-0"), rule(ir.UDP, 0, 65535, "p-2")),
			np(d, id(4), []string{"ns/d"}, rule(ir.AnyProtocol, 0, 0, "p-3")),
			np(d, id(5), []string{"ns/e"}, rule(ir.TCP, 81, 81, "*"), rule(ir.TCP, 90, 99, "p-block"), rule(ir.SCTP, 1, 65535, "*")),
			np(d, id(6), []string{"ns/f"}, rule(ir.AnyProtocol, 0, 0, "*")),
			wideGroup(d, id(7), rule(ir.TCP, 80, 80, "p-0"), rule(ir.TCP, 81, 81, "p-1"), rule(ir.UDP, 0, 65535, "p-2")),
			wideGroup(d, id(8), rule(ir.TCP, 80, 80, "p-0"), rule(ir.TCP, 90, 90, "p-0"), rule(ir.UDP, 0, 65535, "p-2")),
			wideGroup(d, id(9), rule(ir.TCP, 80, 80, "p-3"), rule(ir.TCP, 81, 81, "p-few"), rule(ir.UDP, 0, 65535, "p-2")),
			wideGroup(d, id(10), rule(ir.TCP, 80, 80, "p-0"), rule(ir.TCP, 81, 81, "p-block"), rule(ir.TCP, 82, 82, "*")),
			onTrial(np(d, id(11), []string{"ns/g"})),
			onTrial(np(d, id(12), []string{"ns/h"}, rule(ir.TCP, 80, 80, "p-1"), rule(ir.TCP, 81, 82, "p-0"))),
			onTrial(wideGroup(d, id(13), rule(ir.TCP, 80, 80, "p-0"), rule(ir.TCP, 81, 81, "p-1"), rule(ir.UDP, 0, 65535, "p-2"))),
			onTrial(wideGroup(d, id(14), rule(ir.TCP, 80, 80, "p-0"), rule(ir.TCP, 90, 90, "p-0"), rule(ir.UDP, 0, 65535, "p-2"))),
		)
	}
	return out
}

func wideGroup(d ir.Direction, id string, rules ...ir.Rule) ir.Group {
	g := np(d, id, []string{"ns/" + id}, rules...)
	g.Wide = true
	return g
}

// onTrial returns a group that denies nothing.
func onTrial(g ir.Group) ir.Group {
	g.Audit = true
	return g
}

// between returns the change from one state to another.
func between(a, b ir.State) (c ir.Change) {
	for _, p := range b.PeerSets {
		old, ok := a.PeerSet(p.ID)
		if !ok {
			c.AddPeerSets = append(c.AddPeerSets, p)
			continue
		}
		pc := ir.PeerSetChange{ID: p.ID, Join: without(p.Addrs, old.Addrs), Leave: without(old.Addrs, p.Addrs)}
		if len(pc.Join)+len(pc.Leave) > 0 {
			c.PeerSets = append(c.PeerSets, pc)
		}
	}
	had := ofWideGroups(a)
	for id := range ofWideGroups(b) {
		if p, ok := a.PeerSet(id); ok && !had[id] {
			c.Members = append(c.Members, p)
		}
	}
	for _, p := range a.PeerSets {
		if _, ok := b.PeerSet(p.ID); !ok {
			c.RemovePeerSets = append(c.RemovePeerSets, p.ID)
		}
	}
	for _, g := range b.Groups {
		if _, ok := a.Group(g.ID); !ok {
			c.AddGroups = append(c.AddGroups, g)
		}
	}
	for _, g := range a.Groups {
		if _, ok := b.Group(g.ID); !ok {
			c.RemoveGroups = append(c.RemoveGroups, g.ID)
		}
	}
	for i, e := range b.Endpoints {
		if old, ok := a.Endpoint(e.Addr); !ok {
			c.Endpoints = append(c.Endpoints, ir.EndpointChange{New: &b.Endpoints[i]})
		} else if old != e {
			c.Endpoints = append(c.Endpoints, ir.EndpointChange{Old: &old, New: &b.Endpoints[i]})
		}
	}
	for i, e := range a.Endpoints {
		if _, ok := b.Endpoint(e.Addr); !ok {
			c.Endpoints = append(c.Endpoints, ir.EndpointChange{Old: &a.Endpoints[i]})
		}
	}
	return c
}

// ofWideGroups returns the peer sets of pods that wide groups have.
func ofWideGroups(s ir.State) map[ir.PeerSetID]bool {
	out := map[ir.PeerSetID]bool{}
	for _, g := range s.Groups {
		if g.Wide {
			for id := range setsOf(g) {
				if p, _ := s.PeerSet(id); p.Selects {
					out[id] = true
				}
			}
		}
	}
	return out
}

func sorted(s ir.State) ir.State {
	slices.SortFunc(s.Endpoints, ir.CompareEndpoints)
	slices.SortFunc(s.Groups, ir.CompareGroups)
	slices.SortFunc(s.PeerSets, ir.ComparePeerSets)
	return s
}
