package nft

import "slices"

// unit is a list of operations that have to be in one batch. Anything else may
// be cut into batches as the socket needs it.
type unit []Op

// step is a part of a plan: first, if grace is set, a wait for the packets that
// are still on their way, then units, in order.
type step struct {
	grace bool
	units []unit
}

// batches packs units into as few batches as the limits allow. A unit that does
// not fit stands alone.
func batches(l Limits, table string, units []unit) []Batch {
	var out []Batch
	var sum Limits
	for _, u := range units {
		c := Batch{Ops: u}.cost()
		next := Limits{sum.Bytes + c.Bytes, sum.Replies + c.Replies, sum.Messages + c.Messages}
		if len(out) == 0 || next.Bytes > l.Bytes || next.Replies > l.Replies || next.Messages > l.Messages {
			out = append(out, Batch{Table: table})
			next = c
		}
		sum = next
		last := &out[len(out)-1]
		last.Ops = append(last.Ops, u...)
	}
	return out
}

// chunks cuts elements to what one message holds.
func chunks(elements []Element) [][]Element {
	var out [][]Element
	start, bytes := 0, 0
	for i, e := range elements {
		n := elementBytes(e)
		if i > start && (i-start == maxElements || bytes+n > maxElementBytes) {
			out = append(out, elements[start:i])
			start, bytes = i, 0
		}
		bytes += n
	}
	if start < len(elements) {
		out = append(out, elements[start:])
	}
	return out
}

func addElements(s *Set, elements []Element) (out []unit) {
	for _, c := range chunks(elements) {
		out = append(out, unit{AddElements{s, c}})
	}
	return out
}

func delElements(s *Set, elements []Element) (out []unit) {
	for _, c := range chunks(elements) {
		out = append(out, unit{DelElements{s, c}})
	}
	return out
}

// replaceElements gives keys of a map other verdicts. To delete and add a key in
// one batch is to replace it.
func replaceElements(s *Set, elements []Element) (out []unit) {
	for _, c := range chunks(elements) {
		out = append(out, unit{DelElements{s, c}, AddElements{s, c}})
	}
	return out
}

func addRules(c *Chain) (out []unit) {
	for _, r := range c.Rules {
		out = append(out, unit{AddRule{c.Name, r}})
	}
	return out
}

// create makes sets, maps and chains that nothing in force leads to, in an order
// in which nothing names what does not exist yet.
func create(sets, maps []*Set, chains []*Chain) (out []unit) {
	for _, s := range slices.Concat(sets, maps) {
		out = append(out, unit{AddSet{s}})
	}
	for _, c := range chains {
		out = append(out, unit{AddChain{c}})
	}
	for _, s := range slices.Concat(sets, maps) {
		out = append(out, addElements(s, s.Elements)...)
	}
	for _, c := range chains {
		out = append(out, addRules(c)...)
	}
	return out
}

// createBase puts chains in force: they and their rules are one unit.
func createBase(chains []*Chain) (u unit) {
	for _, c := range chains {
		u = append(u, AddChain{c})
		for _, r := range c.Rules {
			u = append(u, AddRule{c.Name, r})
		}
	}
	return u
}

// removeBase puts chains out of force: they are one unit.
func removeBase(chains []string) (u unit) {
	for _, c := range chains {
		u = append(u, FlushChain{c}, DelChain{c})
	}
	return u
}

// remove deletes chains, and sets that only they use. Elements of the maps may
// lead to chains that stay.
func remove(chains []string, sets []string) (out []unit) {
	for _, c := range chains {
		out = append(out, unit{FlushChain{c}})
	}
	for _, s := range sets {
		out = append(out, unit{DelSet{s}})
	}
	for _, c := range chains {
		out = append(out, unit{DelChain{c}})
	}
	return out
}

// split separates the chains that packets enter by from the rest.
func (t *Table) split() (base, rest []*Chain) {
	for _, c := range t.Chains {
		if c.base() {
			base = append(base, c)
		} else {
			rest = append(rest, c)
		}
	}
	return base, rest
}
