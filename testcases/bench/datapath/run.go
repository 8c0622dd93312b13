package datapath

import (
	"context"
	"fmt"
	"time"

	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/testcases/bench/report"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// The series of the tables.
const (
	noRules   = "no rules"
	onlyTrack = "conntrack only"
	layout    = "classic"
	one       = "one direction"
	full      = "full model"
)

// What is wanted of the rules.
const (
	flat        = 1.10 // what a new flow costs with most policies, as a multiple of one policy
	oneNew      = 0.88 // new flows a second, of those with connection tracking only
	fullNew     = 0.80
	established = 0.97 // packets of known flows a second, of those with connection tracking only
)

// Run measures everything and adds the tables to r, those of parts that were
// finished also if it fails. The process has to be allowed to make network
// namespaces (see lab.Enter).
func Run(ctx context.Context, o report.Options, r *report.Report) error {
	scale := wholeRun()
	if o.Quick {
		scale = quickRun()
	}
	return scale.run(ctx, o, r)
}

// scale is how much is measured.
type scale struct {
	// sizes are numbers of policies, ascending; chains those of them that the
	// classic layout is measured at.
	sizes, chains []int
	peers         []int // addresses of one policy
	builds        int
	rounds        int // of each build
	// fewer holds the sizes, builds and rounds of every place but the first.
	fewer                    []int
	fewerBuilds, fewerRounds int
	loads                    int // rounds of loading
	dose                     dose
}

func wholeRun() scale {
	return scale{
		sizes: []int{1, 10, 100, 1000, 10000}, chains: []int{1, 10, 100, 1000, 10000}, peers: []int{10, 1000, 100_000}, builds: 5, rounds: 6,
		fewer: []int{1, 10, 100, 1000, 10000}, fewerBuilds: 3, fewerRounds: 5, loads: 9,
		dose: dose{packets: 4096, connections: 200, most: 40 * time.Millisecond, stream: 100 * time.Millisecond},
	}
}

func quickRun() scale {
	return scale{
		sizes: []int{1, 100, 1000, 10000}, chains: []int{1, 100, 1000}, peers: []int{10, 100_000}, builds: 3, rounds: 5,
		fewer: []int{1, 1000}, fewerBuilds: 2, fewerRounds: 5, loads: 5,
		dose: dose{packets: 4096, connections: 200, most: 10 * time.Millisecond, stream: 50 * time.Millisecond},
	}
}

func (s scale) run(ctx context.Context, o report.Options, r *report.Report) error {
	say := func(line string) { o.Say("datapath: " + line) }
	for i, p := range []place{{lab.Routed, false}, {lab.Routed, true}, {lab.Bridged, false}, {lab.Bridged, true}} {
		sizes, chains, builds, rounds, probes := s.sizes, s.chains, s.builds, s.rounds, allProbes(p, last(s.sizes))
		if i > 0 {
			sizes, chains, builds, rounds = s.fewer, s.fewer, s.fewerBuilds, s.fewerRounds
			if o.Quick {
				probes = []probe{newProbe(p, worst, last(sizes)), knownProbe(p, last(sizes))}
			}
		}
		c := comparison{place: p, subjects: policySubjects(ctx, sizes, chains), probes: wanted(o, probes), builds: builds, rounds: rounds, dose: s.dose, say: say}
		if err := c.into(ctx, r); err != nil {
			return err
		}
	}
	four, six := place{lab.Routed, false}, place{lab.Routed, true}
	for _, c := range []comparison{
		{place: four, subjects: peerSubjects(ctx, s.peers), probes: []probe{peersProbe(four, s.peers[0], last(s.peers))}, builds: s.fewerBuilds, rounds: s.fewerRounds},
		{place: four, subjects: partSubjects(ctx), probes: []probe{partsProbe(four)}, builds: s.builds, rounds: s.rounds},
		{place: six, subjects: partSubjects(ctx), probes: []probe{partsProbe(six)}, builds: s.builds, rounds: s.rounds},
	} {
		c.dose, c.say, c.probes = s.dose, say, wanted(o, c.probes)
		if err := c.into(ctx, r); err != nil {
			return err
		}
	}
	if !o.Wants(loadTable) {
		return nil
	}
	t, err := loads(ctx, o, s.sizes, s.loads)
	if err != nil {
		return err
	}
	r.Add(t)
	return nil
}

// into runs the comparison, if it has anything to measure.
func (c *comparison) into(ctx context.Context, r *report.Report) error {
	if len(c.probes) == 0 {
		return nil
	}
	tables, err := c.run(ctx)
	for _, t := range tables {
		r.Add(t)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", c.place, err)
	}
	return nil
}

func wanted(o report.Options, probes []probe) (out []probe) {
	for _, p := range probes {
		if o.Wants(p.table.Name) {
			out = append(out, p)
		}
	}
	return out
}

func last(list []int) int { return list[len(list)-1] }

// slow is the number of policies from which on the classic layout takes seconds to
// load, and milliseconds for a packet.
const slow = 10_000

// policySubjects are all kinds of rules, for numbers of policies of one pod.
func policySubjects(ctx context.Context, sizes, chains []int) []subject {
	out := []subject{
		{series: noRules, sizes: sizes, load: bare},
		{series: onlyTrack, sizes: sizes, load: tracking},
	}
	for _, n := range chains {
		out = append(out, subject{series: layout, sizes: []int{n}, denies: true, once: n >= slow, load: classic(n, 0)})
	}
	for _, n := range sizes {
		out = append(out, subject{series: one, sizes: []int{n}, denies: true, load: oneDirection(n, 0).enforce(ctx)})
	}
	for _, n := range sizes {
		out = append(out, subject{series: full, sizes: []int{n}, denies: true, load: fullModel(n, 0).enforce(ctx)})
	}
	for i := range out {
		out[i].first = policyPort(0, out[i].sizes[0])
	}
	return out
}

// peerSubjects are rules for numbers of addresses that one policy allows.
func peerSubjects(ctx context.Context, peers []int) []subject {
	out := []subject{{series: onlyTrack, sizes: peers, load: tracking}}
	for _, n := range peers {
		out = append(out,
			subject{series: layout, sizes: []int{n}, load: classic(1, n)},
			subject{series: one, sizes: []int{n}, load: oneDirection(1, n).enforce(ctx)},
			subject{series: full, sizes: []int{n}, load: fullModel(1, n).enforce(ctx)})
	}
	return out
}

// somePolicies is how many the parts of the full model are measured with. Since its
// cost is the same with any number of them, it is not a size here.
const somePolicies = 10

// partSubjects are the full model, and what is left of it without some of its parts.
func partSubjects(ctx context.Context) []subject {
	both := fullModel(somePolicies, 0)
	without := func(change func(*nft.Config)) func(*site) error {
		w := both
		w.config = func(s *site) nft.Config {
			cfg := everything(s)
			change(&cfg)
			return cfg
		}
		return w.enforce(ctx)
	}
	out := []subject{
		{series: onlyTrack, load: tracking},
		{series: one, load: oneDirection(somePolicies, 0).enforce(ctx)},
		{series: "both directions", load: without(func(c *nft.Config) { *c = nft.Config{} })},
		{series: full + " without Midstream", load: without(func(c *nft.Config) { c.Midstream = false })},
		{series: full + " without PodCIDRs", load: without(func(c *nft.Config) { c.PodCIDRs = nil })},
		{series: full + " without PodToNode", load: without(func(c *nft.Config) { c.PodToNode = false })},
		{series: full, load: both.enforce(ctx)},
	}
	for i := range out {
		out[i].sizes = []int{1}
	}
	return out
}

// partsProbe tells nanoseconds, which can be added up.
func partsProbe(p place) probe {
	return probe{
		table: report.Table{
			Name: "parts-" + p.String(), Title: fmt.Sprintf("What parts of the full model cost a new flow, %s, %d policies", p, somePolicies),
			Unit: "nanoseconds of processor time", Better: report.Lower, Baseline: onlyTrack,
		},
		take: func(m measurer, s *site, _ subject) (float64, error) {
			rate, err := m.newFlows(s, allowedPort, true)
			return 1e6 / rate, err
		},
	}
}

// The cases of a new flow.
const (
	best   = "best"
	worst  = "worst"
	denied = "denied"
)

func allProbes(p place, most int) []probe {
	return []probe{
		newProbe(p, worst, most), newProbe(p, best, most), newProbe(p, denied, most),
		connectProbe(p, most), knownProbe(p, most), streamProbe(p, most),
	}
}

var caseTitles = map[string]string{
	best:   "allowed by the first policy",
	worst:  "allowed by the last policy",
	denied: "allowed by no policy",
}

// newProbe sends packets that all begin a flow.
func newProbe(p place, which string, most int) probe {
	t := policyTable("new-"+p.String()+"-"+which, fmt.Sprintf("New flows, %s, %s (UDP, every packet is the first of its flow)", p, caseTitles[which]), "thousand packets a second of processor time", most)
	return probe{
		table: t,
		take: func(m measurer, s *site, sub subject) (float64, error) {
			switch which {
			case best:
				return m.newFlows(s, sub.first, true)
			case denied:
				return m.newFlows(s, deniedPort, !sub.denies)
			}
			return m.newFlows(s, allowedPort, true)
		},
		goals: func(t *report.Table) { newGoals(t, 1, float64(most)) },
	}
}

// connectProbe opens and closes TCP connections.
func connectProbe(p place, most int) probe {
	return probe{
		table: policyTable("connect-"+p.String(), fmt.Sprintf("TCP connections opened and closed, %s, allowed by the last policy", p), "thousand connections a second of processor time", most),
		take:  func(m measurer, s *site, _ subject) (float64, error) { return m.connections(s) },
		goals: func(t *report.Table) { newGoals(t, 1, float64(most)) },
	}
}

// knownProbe sends packets of a flow that is established.
func knownProbe(p place, most int) probe {
	return probe{
		table: policyTable("established-"+p.String(), fmt.Sprintf("Packets of an established flow, %s (UDP)", p), "thousand packets a second of processor time", most),
		take:  func(m measurer, s *site, _ subject) (float64, error) { return m.knownFlow(s) },
		goals: func(t *report.Table) { knownGoals(t, float64(most)) },
	}
}

// streamProbe sends as much as goes through one TCP connection.
func streamProbe(p place, most int) probe {
	return probe{
		table: policyTable("stream-"+p.String(), fmt.Sprintf("One TCP stream, %s", p), "Gbit a second of processor time of both ends", most),
		at:    most,
		take:  func(m measurer, s *site, _ subject) (float64, error) { return m.stream(s) },
		goals: func(t *report.Table) { knownGoals(t, float64(most)) },
	}
}

// peersProbe sends packets that begin a flow to a pod with one policy.
func peersProbe(p place, least, most int) probe {
	return probe{
		table: report.Table{
			Name: "peers-" + p.String(), Title: fmt.Sprintf("New flows, %s, by the number of addresses that the policy allows", p),
			Unit: "thousand packets a second of processor time", XName: "addresses", Better: report.Higher, Baseline: onlyTrack,
		},
		take:  func(m measurer, s *site, _ subject) (float64, error) { return m.newFlows(s, allowedPort, true) },
		goals: func(t *report.Table) { newGoals(t, float64(least), float64(most)) },
	}
}

func policyTable(name, title, unit string, most int) report.Table {
	t := report.Table{Name: name, Title: title, Unit: unit, XName: "policies of the pod", Better: report.Higher, Baseline: onlyTrack}
	if most > maxDistinct {
		t.Notes = append(t.Notes, fmt.Sprintf("More than %d policies share their peers (the classic layout: their sets).", maxDistinct))
	}
	return t
}

// newGoals are those of new flows, from the least to the most of a size.
func newGoals(t *report.Table, least, most float64) {
	for _, s := range []string{one, full} {
		cost := t.Growth(s, least, most).Median // what one costs is the inverse of how many there are
		t.AtMost(fmt.Sprintf("%s, cost at %.0f by cost at %.0f", s, most, least), cost, flat)
	}
	t.AtLeast(fmt.Sprintf("%s at %.0f, by %s", one, most, onlyTrack), t.Ratio(one, onlyTrack, most).Median, oneNew)
	t.AtLeast(fmt.Sprintf("%s at %.0f, by %s", full, most, onlyTrack), t.Ratio(full, onlyTrack, most).Median, fullNew)
}

func knownGoals(t *report.Table, most float64) {
	for _, s := range []string{one, full} {
		t.AtLeast(fmt.Sprintf("%s at %.0f, by %s", s, most, onlyTrack), t.Ratio(s, onlyTrack, most).Median, established)
	}
}
