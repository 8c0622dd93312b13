package main

import (
	"github.com/portcullis-netpol/portcullis/policy/matrix"
)

// matrixVersion is the version of the JSON of matrix and matrix diff. Fields may be added to a version.
const matrixVersion = 1

type matrixJSON struct {
	Version   int               `json:"version"`
	Kind      string            `json:"kind"` // "matrix"
	By        matrix.By         `json:"by"`
	Ends      []endJSON         `json:"ends"`
	Cells     []cellJSON        `json:"cells"`
	Profiles  []profileJSON     `json:"profiles"`
	Decisions []matrix.Decision `json:"decisions"`
	Warnings  []string          `json:"warnings"`
}

type endJSON struct {
	FullName string `json:"fullName"` // as cells name it
	matrix.End
}

type cellJSON struct {
	From     string               `json:"from"`
	To       string               `json:"to"`
	Verdict  string               `json:"verdict"`
	IPv4     []string             `json:"ipv4"` // null if there is no pair with the family
	IPv6     []string             `json:"ipv6"`
	SomeIPv4 []string             `json:"someIPv4,omitempty"`
	SomeIPv6 []string             `json:"someIPv6,omitempty"`
	Asked    map[string]askedJSON `json:"asked,omitempty"`
	Parts    []partJSON           `json:"parts"`
}

// askedJSON is "allowed", "denied" or "mixed" by family; it is left out if there is no pair with the family.
type askedJSON struct {
	IPv4 string `json:"ipv4,omitempty"`
	IPv6 string `json:"ipv6,omitempty"`
}

type partJSON struct {
	Egress  int      `json:"egress"`  // index of profiles
	Ingress int      `json:"ingress"` // index of profiles
	Pairs   int      `json:"pairs,omitempty"`
	From    string   `json:"from,omitempty"`
	To      string   `json:"to,omitempty"`
	Blocks  []string `json:"blocks,omitempty"`
}

type profileJSON struct {
	IPv4 []stretchJSON `json:"ipv4"`
	IPv6 []stretchJSON `json:"ipv6"`
}

type stretchJSON struct {
	Ports    string `json:"ports"`
	Decision int    `json:"decision"` // index of decisions
}

func newMatrixJSON(m *matrix.Matrix, asked []service, warnings []string) matrixJSON {
	view := m.Views[0]
	out := matrixJSON{
		Version: matrixVersion, Kind: "matrix", By: view.By, Ends: endsJSON(view.Ends), Cells: []cellJSON{},
		Profiles: profilesJSON(m.Table), Decisions: m.Decisions, Warnings: append([]string{}, warnings...),
	}
	for i, row := range view.Cells {
		for j, id := range row {
			if id == matrix.Blank {
				continue
			}
			v := m.Variants[id]
			c := cellJSON{
				From: view.Ends[i].FullName(), To: view.Ends[j].FullName(), Verdict: verdictWord(v.Reach),
				IPv4: everyJSON(v.Reach, 0), IPv6: everyJSON(v.Reach, 1), SomeIPv4: someJSON(v.Reach, 0), SomeIPv6: someJSON(v.Reach, 1),
				Parts: partsJSON(v.Parts),
			}
			for _, s := range asked {
				if c.Asked == nil {
					c.Asked = map[string]askedJSON{}
				}
				c.Asked[s.name] = askedJSON{s.word(v.Reach, 0), s.word(v.Reach, 1)}
			}
			out.Cells = append(out.Cells, c)
		}
	}
	return out
}

func endsJSON(ends []matrix.End) []endJSON {
	out := []endJSON{}
	for _, e := range ends {
		out = append(out, endJSON{e.FullName(), e})
	}
	return out
}

// verdictWord sums a cell up.
func verdictWord(r *matrix.Reach) string {
	all, nothing := true, true
	for f, has := range r.Has {
		all = all && (!has || r.Every[f].All())
		nothing = nothing && r.Some[f].Empty()
	}
	switch {
	case !r.Has[0] && !r.Has[1]:
		return "noFamily"
	case nothing:
		return "none"
	case r.Mixed():
		return "mixed"
	case all:
		return "all"
	}
	return "ports"
}

func everyJSON(r *matrix.Reach, f int) []string {
	if !r.Has[f] {
		return nil
	}
	return r.Every[f].List()
}

func someJSON(r *matrix.Reach, f int) []string {
	if r.Every[f].Equal(r.Some[f]) {
		return nil
	}
	return r.Some[f].List()
}

func (s service) word(r *matrix.Reach, f int) string {
	switch {
	case !r.Has[f]:
		return ""
	case r.Every[f].Contains(s.protocol, s.port):
		return "allowed"
	case r.Some[f].Contains(s.protocol, s.port):
		return "mixed"
	}
	return "denied"
}

func partsJSON(parts []matrix.Part) []partJSON {
	out := []partJSON{}
	for _, p := range parts {
		is := partJSON{Egress: p.Egress, Ingress: p.Ingress, Pairs: p.Pairs, From: p.From, To: p.To}
		for _, b := range p.Blocks {
			is.Blocks = append(is.Blocks, b.String())
		}
		out = append(out, is)
	}
	return out
}

func profilesJSON(t matrix.Table) []profileJSON {
	out := []profileJSON{}
	for _, p := range t.Profiles {
		out = append(out, profileJSON{stretchesJSON(p.Families[0]), stretchesJSON(p.Families[1])})
	}
	return out
}

func stretchesJSON(list []matrix.Stretch) []stretchJSON {
	var out []stretchJSON
	for _, s := range list {
		out = append(out, stretchJSON{s.Name(), s.Decision})
	}
	return out
}
