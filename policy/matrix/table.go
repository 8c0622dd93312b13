package matrix

import (
	"strconv"

	"github.com/portcullis-netpol/portcullis/policy/evaluate"
)

// Profile is what one direction says of all traffic from one member to another.
type Profile struct {
	// Families are the stretches of IPv4 and of IPv6, sorted by protocol and port; they cover all traffic. Nil is a
	// family that not both ends have.
	Families [families][]Stretch

	allowed [families]Ports
}

// Allowed is what the direction lets pass in a family: 0 is IPv4, 1 is IPv6.
func (p *Profile) Allowed(family int) Ports { return p.allowed[family] }

// Stretch is a range of ports that is judged alike.
type Stretch struct {
	Protocol int // 0 is TCP, 1 UDP, 2 SCTP, 3 ICMP
	Ports    Range
	Decision int // index of Decisions
}

// Table keeps each decision and each profile of one state once.
type Table struct {
	Decisions []Decision
	Profiles  []Profile

	side        *side
	decisionIDs map[string]int
	profileIDs  map[string]int32
	passages    map[passage]*passageReach
	reaches     map[string]*Reach
}

// passage is both directions of a pair: the indices of the profiles of egress and of ingress.
type passage [2]int32

// passageReach is what passes.
type passageReach struct {
	has     [families]bool
	allowed [families]Ports
}

func newTable(s *side) *Table {
	return &Table{side: s, decisionIDs: map[string]int{}, profileIDs: map[string]int32{}, passages: map[passage]*passageReach{}, reaches: map[string]*Reach{}}
}

// decision returns the index of a decision.
func (t *Table) decision(d evaluate.Decision, egress bool) int {
	key := strconv.AppendBool(strconv.AppendBool(strconv.AppendQuote(nil, d.Reason), d.Allowed), d.WouldDeny)
	for _, names := range [][]string{d.Isolated, d.Audit} {
		key = append(key, '|')
		for _, name := range names {
			key = strconv.AppendQuote(key, name)
		}
	}
	if len(d.By) > 0 { // otherwise it reads the same in both directions
		key = strconv.AppendBool(key, egress)
	}
	for _, m := range d.By {
		key = strconv.AppendQuote(key, m.Policy)
		for _, n := range []int{m.Rule, m.Peer, m.Port} {
			key = append(strconv.AppendInt(key, int64(n), 10), ',')
		}
	}
	id, known := t.decisionIDs[string(key)]
	if !known {
		id = len(t.Decisions)
		t.decisionIDs[string(key)] = id
		t.Decisions = append(t.Decisions, t.side.newDecision(d, egress))
	}
	return id
}

// profile returns the index of what was asked.
func (t *Table) profile(p probed, egress bool) int32 {
	var out Profile
	var key []byte
	for f, list := range p {
		key = append(key, '|')
		if list != nil {
			key = append(key, 'x')
			out.Families[f] = []Stretch{}
		}
		for _, s := range list {
			is := Stretch{s.protocol, s.ports, t.decision(s.decision, egress)}
			for _, n := range []int{is.Protocol, int(is.Ports.First), is.Decision} {
				key = append(strconv.AppendInt(key, int64(n), 10), ',')
			}
			out.Families[f] = append(out.Families[f], is)
			if s.decision.Allowed {
				all := &out.allowed[f].ranges[s.protocol]
				*all = merged(append(*all, s.ports))
			}
		}
	}
	id, known := t.profileIDs[string(key)]
	if !known {
		id = int32(len(t.Profiles))
		t.profileIDs[string(key)] = id
		t.Profiles = append(t.Profiles, out)
	}
	return id
}

// reach is what both directions let pass.
func (t *Table) reach(p passage) *passageReach {
	out := t.passages[p]
	if out == nil {
		egress, ingress := &t.Profiles[p[0]], &t.Profiles[p[1]]
		out = &passageReach{}
		for f := range families {
			out.has[f] = egress.Families[f] != nil
			out.allowed[f] = egress.allowed[f].Intersect(ingress.allowed[f])
		}
		t.passages[p] = out
	}
	return out
}

// Name names the ports of the stretch: "tcp/80", "udp/1-99", "sctp/*", "icmp".
func (s Stretch) Name() string { return s.Ports.name(protocols[s.Protocol]) }
