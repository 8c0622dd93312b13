package matrixpage

import (
	"github.com/portcullis-netpol/portcullis/policy/matrix"
)

// payload is the data of the page. It is compact: what repeats is stored once and meant by its index.
type payload struct {
	Version int      `json:"version"`
	Kind    string   `json:"kind"` // "matrix" or "diff"
	Source  string   `json:"source"`
	Notes   []string `json:"notes"`
	Ports   []string `json:"ports"`
	Views   []view   `json:"views"`
	Reaches []reach  `json:"reaches"`
	// Variants are what cells mean. Of a difference, they are changes.
	Variants []variant `json:"variants"`
	Changes  []change  `json:"changes,omitempty"`
	// Tables has one table, or those of the old and the new state.
	Tables []table  `json:"tables"`
	Gone   []string `json:"gone,omitempty"`
	Added  []string `json:"added,omitempty"`
}

type view struct {
	By    matrix.By    `json:"by"`
	Ends  []matrix.End `json:"ends"`
	Cells [][]int32    `json:"cells"`
}

// reach is by family what passes between every pair, and between some if that is more.
type reach [2]*familyReach

type familyReach struct {
	Every ports  `json:"e"`
	Some  *ports `json:"s,omitempty"`
}

// ports are first and last port of each range, by protocol.
type ports [4][]int32

// variant is the index of its reach, and its parts, or some of them.
type variant struct {
	Reach int    `json:"r"`
	Parts []part `json:"p"`
	More  int    `json:"m,omitempty"` // how many parts are not here
}

// mostParts are the parts of a cell that a person may want to read. Rows by pod have few.
const mostParts = 12

// part is [egress, ingress], or with more about the pairs behind it.
type part []any

type partDetails struct {
	Pairs  int      `json:"n"`
	From   string   `json:"f"`
	To     string   `json:"t"`
	Blocks []string `json:"b,omitempty"`
}

// change has indices of reaches, and the variants of both states.
type change struct {
	Opened int     `json:"o"`
	Closed int     `json:"c"`
	Old    variant `json:"old"`
	New    variant `json:"new"`
}

type table struct {
	Profiles  [][2]stretches    `json:"profiles"`
	Decisions []matrix.Decision `json:"decisions"`
}

// stretches are protocol, first port, last port and decision, again and again; null if there is no such family.
type stretches []int32

// builder collects reaches.
type builder struct {
	reaches map[*matrix.Reach]int
	list    []reach
}

func newPayload(p Page) payload {
	b := &builder{reaches: map[*matrix.Reach]int{}}
	out := payload{Version: 1, Kind: "matrix", Source: p.Source, Notes: p.Notes, Ports: p.Ports}
	if p.Diff != nil {
		out.Kind = "diff"
		out.Views = []view{{p.Diff.View.By, p.Diff.View.Ends, p.Diff.View.Cells}}
		for i := range p.Diff.Changes {
			c := &p.Diff.Changes[i]
			out.Changes = append(out.Changes, change{
				b.reach(&c.Opened), b.reach(&c.Closed), b.variant(c.Old, p.Diff.Old), b.variant(c.New, p.Diff.New),
			})
		}
		out.Tables = []table{newTable(p.Diff.Old), newTable(p.Diff.New)}
		out.Gone, out.Added = p.Diff.Gone, p.Diff.Added
	} else {
		for _, v := range p.Matrix.Views {
			out.Views = append(out.Views, view{v.By, v.Ends, v.Cells})
		}
		for _, v := range p.Matrix.Variants {
			out.Variants = append(out.Variants, b.variant(v, p.Matrix.Table))
		}
		out.Tables = []table{newTable(p.Matrix.Table)}
	}
	out.Reaches = b.list
	return out
}

func (b *builder) variant(v matrix.Variant, t matrix.Table) variant {
	shown := v.Parts
	if len(shown) > mostParts {
		shown = different(shown, t)
	}
	out := variant{Reach: b.reach(v.Reach), More: len(v.Parts) - len(shown)}
	for _, p := range shown {
		is := part{p.Egress, p.Ingress}
		if p.From != "" || len(p.Blocks) > 0 {
			details := partDetails{Pairs: p.Pairs, From: p.From, To: p.To}
			for _, block := range p.Blocks {
				details.Blocks = append(details.Blocks, block.String())
			}
			is = append(is, details)
		}
		out.Parts = append(out.Parts, is)
	}
	return out
}

// different picks parts of which different traffic passes, as far as there are.
func different(parts []matrix.Part, t matrix.Table) []matrix.Part {
	var first, others []matrix.Part
	seen := map[string]bool{}
	for _, p := range parts {
		passes := ""
		for f := range 2 {
			passes += t.Profiles[p.Egress].Allowed(f).Intersect(t.Profiles[p.Ingress].Allowed(f)).String() + ";"
		}
		if seen[passes] {
			others = append(others, p)
			continue
		}
		seen[passes] = true
		first = append(first, p)
	}
	return append(first, others...)[:mostParts]
}

// reach returns the index of what passes.
func (b *builder) reach(r *matrix.Reach) int {
	i, known := b.reaches[r]
	if known {
		return i
	}
	var out reach
	for f, has := range r.Has {
		if !has {
			continue
		}
		out[f] = &familyReach{Every: newPorts(r.Every[f])}
		if !r.Every[f].Equal(r.Some[f]) {
			some := newPorts(r.Some[f])
			out[f].Some = &some
		}
	}
	i = len(b.list)
	b.reaches[r] = i
	b.list = append(b.list, out)
	return i
}

func newPorts(p matrix.Ports) ports {
	var out ports
	for i := range out {
		out[i] = []int32{}
		for _, r := range p.Ranges(i) {
			out[i] = append(out[i], r.First, r.Last)
		}
	}
	return out
}

func newTable(t matrix.Table) table {
	out := table{Decisions: t.Decisions}
	for _, p := range t.Profiles {
		var both [2]stretches
		for f, list := range p.Families {
			for _, s := range list {
				both[f] = append(both[f], int32(s.Protocol), s.Ports.First, s.Ports.Last, int32(s.Decision))
			}
		}
		out.Profiles = append(out.Profiles, both)
	}
	return out
}
