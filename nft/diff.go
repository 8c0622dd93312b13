package nft

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// Difference is one thing that is not as it should be.
type Difference struct {
	// Object says what it is about, such as "chain egress" or "set self4".
	Object string
	// Want and Have say it in nft's words; empty where there is nothing.
	Want, Have string
}

// String returns the difference in one line.
func (d Difference) String() string {
	switch {
	case d.Have == "":
		return fmt.Sprintf("%s: %s is missing", d.Object, d.Want)
	case d.Want == "":
		return fmt.Sprintf("%s: %s is too much", d.Object, d.Have)
	}
	return fmt.Sprintf("%s: %s instead of %s", d.Object, d.Have, d.Want)
}

// maxDifferences bounds what Diff returns of one object: a set that is empty
// need not be told element by element.
const maxDifferences = 10

// Diff returns what have lacks of want and what it has beyond, sorted. The names
// of the tables and the order of sets, maps, chains and elements do not count.
func Diff(want, have *Table) []Difference {
	var out []Difference
	out = append(out, diffSets("set", want.Sets, have.Sets)...)
	out = append(out, diffSets("map", want.Maps, have.Maps)...)
	out = append(out, diffNamed("chain", byName(want.Chains, chainName), byName(have.Chains, chainName), diffChain)...)
	slices.SortStableFunc(out, func(a, b Difference) int { return cmp.Compare(a.Object, b.Object) })
	return out
}

func chainName(c *Chain) string { return c.Name }
func setName(s *Set) string     { return s.Name }

func byName[T any](list []*T, name func(*T) string) map[string]*T {
	out := make(map[string]*T, len(list))
	for _, x := range list {
		out[name(x)] = x
	}
	return out
}

func diffSets(word string, want, have []*Set) []Difference {
	return diffNamed(word, byName(want, setName), byName(have, setName), diffSet)
}

// diffNamed compares objects by name, and those of one name with diff.
func diffNamed[T any](word string, want, have map[string]*T, diff func(object string, want, have *T) []Difference) []Difference {
	var out []Difference
	for name, w := range want {
		object := word + " " + name
		if h := have[name]; h != nil {
			out = append(out, diff(object, w, h)...)
		} else {
			out = append(out, Difference{Object: object, Want: "all of it"})
		}
	}
	for name := range have {
		if want[name] == nil {
			out = append(out, Difference{Object: word + " " + name, Have: "all of it"})
		}
	}
	return out
}

func diffSet(object string, want, have *Set) []Difference {
	if w, h := want.header(), have.header(); w != h {
		return []Difference{{object, w, h}}
	}
	if want.Expires {
		return nil // its elements come and go by themselves
	}
	var out []Difference
	rest := make(map[string]Element, len(have.Elements))
	for _, e := range have.Elements {
		rest[e.Key] = e
	}
	for _, e := range want.Elements {
		h, ok := rest[e.Key]
		delete(rest, e.Key)
		switch {
		case ok && h == e:
		case ok:
			out = append(out, Difference{object, want.elementText(e), have.elementText(h)})
		default:
			out = append(out, Difference{Object: object, Want: want.elementText(e)})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(rest)) {
		out = append(out, Difference{Object: object, Have: have.elementText(rest[key])})
	}
	return bounded(object, out)
}

// bounded keeps the first of many differences of one object.
func bounded(object string, d []Difference) []Difference {
	if len(d) <= maxDifferences {
		return d
	}
	more := fmt.Sprintf("%d further differences", len(d)-maxDifferences)
	return append(d[:maxDifferences:maxDifferences], Difference{object, more, more})
}

// header returns what a set is apart from its elements.
func (s *Set) header() string {
	text := "type " + s.Type.String()
	if s.Map {
		text += " : verdict"
	}
	if s.Interval {
		text += " flags interval"
	}
	if s.Expires {
		text += " flags timeout"
	}
	if s.Counts {
		text += fmt.Sprintf(",dynamic size %d", maxTallies)
	}
	return text
}

func diffChain(object string, want, have *Chain) []Difference {
	var out []Difference
	if want.Hook != have.Hook || want.Priority != have.Priority {
		out = append(out, Difference{object, want.hookText(), have.hookText()})
	}
	for i := range max(len(want.Rules), len(have.Rules)) {
		var w, h string
		if i < len(want.Rules) {
			w = want.Rules[i].String()
		}
		if i < len(have.Rules) {
			h = have.Rules[i].String()
		}
		if w != h {
			out = append(out, Difference{fmt.Sprintf("%s rule %d", object, i+1), w, h})
		}
	}
	return bounded(object, out)
}
