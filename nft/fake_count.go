package nft

import (
	"maps"
	"slices"
)

// Deliver sends a packet through the base chains of all tables, and counts it as the kernel
// would. The answer is that of the first table that does not accept it. A packet that a
// table drops does not get to the next one, in the order of their names.
func (f *Fake) Deliver(p Packet) Outcome {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(f.tables)) {
		t := f.tables[name]
		ix := t.snapshot(name).indexed()
		w := walker{p: p, now: func() *index { return ix }}
		w.counted = func(chain string, rule, i int) { t.count(p, chain, rule, i) }
		if out := w.walk(); out != Accept {
			return out
		}
	}
	return Accept
}

// count counts a packet where walker.counted says. Nothing that was read before changes.
func (t *fakeTable) count(p Packet, chain string, rule, i int) {
	c := t.chains[chain]
	if tally, ok := c.Rules[rule].Action.(Tally); ok && i < 0 {
		key, ok := tally.Field.key(p)
		s := t.sets[tally.Set]
		if !ok || s == nil {
			return
		}
		e := Element{Key: key, Last: key, Timeout: tallyTimeout, Packets: s.elements[key].Packets + 1}
		s.elements[key] = e
		return
	}
	r := &c.Rules[rule]
	r.Match = slices.Clone(r.Match)
	r.Match[i] = Counter{r.Match[i].(Counter).Packets + 1}
}
