package nft

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// fakeTable is a table with the use counters that the kernel keeps.
type fakeTable struct {
	chains map[string]*fakeChain
	sets   map[string]*fakeSet
}

type fakeChain struct {
	Chain
	use int // jumps of rules and elements to it
}

type fakeSet struct {
	Set
	use      int // rules that look into it
	elements map[string]Element
	// starts are the keys of an interval set, sorted.
	starts []string
}

// fakeTx applies operations to copies, so that a batch can be given up.
type fakeTx struct {
	tables map[string]*fakeTable
	table  string
	own    map[any]bool // objects that are copies already
}

func (tx *fakeTx) apply(op Op) error {
	if _, ok := op.(AddTable); ok {
		if tx.tables[tx.table] != nil {
			return errors.New("the table exists")
		}
		t := &fakeTable{chains: map[string]*fakeChain{}, sets: map[string]*fakeSet{}}
		tx.tables[tx.table], tx.own[t] = t, true
		return nil
	}
	t := tx.tables[tx.table]
	if t == nil {
		return errors.New("there is no such table")
	}
	if _, ok := op.(DelTable); ok {
		delete(tx.tables, tx.table)
		return nil
	}
	if !tx.own[t] {
		t = &fakeTable{chains: maps.Clone(t.chains), sets: maps.Clone(t.sets)}
		tx.tables[tx.table], tx.own[t] = t, true
	}
	switch op := op.(type) {
	case AddSet:
		return tx.addSet(t, op.Set)
	case DelSet:
		return tx.delSet(t, op.Name)
	case AddElements:
		return tx.addElements(t, op)
	case DelElements:
		return tx.delElements(t, op)
	case AddChain:
		if t.chains[op.Chain.Name] != nil {
			return errors.New("the chain exists")
		}
		c := &fakeChain{Chain: Chain{Name: op.Chain.Name, Hook: op.Chain.Hook, Priority: op.Chain.Priority}}
		t.chains[c.Name], tx.own[c] = c, true
		return nil
	case FlushChain:
		return tx.flushChain(t, op.Name)
	case DelChain:
		return tx.delChain(t, op.Name)
	case AddRule:
		return tx.addRule(t, op)
	}
	return fmt.Errorf("unknown operation %T", op)
}

// chain returns a chain that may be changed.
func (tx *fakeTx) chain(t *fakeTable, name string) (*fakeChain, error) {
	c := t.chains[name]
	if c == nil {
		return nil, fmt.Errorf("there is no chain %s", name)
	}
	if !tx.own[c] {
		c = &fakeChain{Chain{c.Name, c.Hook, c.Priority, slices.Clone(c.Rules)}, c.use}
		t.chains[name], tx.own[c] = c, true
	}
	return c, nil
}

// set returns a set that may be changed.
func (tx *fakeTx) set(t *fakeTable, name string) (*fakeSet, error) {
	s := t.sets[name]
	if s == nil {
		return nil, fmt.Errorf("there is no set %s", name)
	}
	if !tx.own[s] {
		s = &fakeSet{s.Set, s.use, maps.Clone(s.elements), slices.Clone(s.starts)}
		t.sets[name], tx.own[s] = s, true
	}
	return s, nil
}

func (tx *fakeTx) addSet(t *fakeTable, set *Set) error {
	if t.sets[set.Name] != nil {
		return errors.New("the set exists")
	}
	s := &fakeSet{Set: Set{Name: set.Name, Type: set.Type, Map: set.Map, Interval: set.Interval, Expires: set.Expires, Counts: set.Counts}, elements: map[string]Element{}}
	t.sets[s.Name], tx.own[s] = s, true
	return nil
}

func (tx *fakeTx) delSet(t *fakeTable, name string) error {
	s, err := tx.set(t, name)
	if err != nil {
		return err
	}
	if s.use > 0 {
		return fmt.Errorf("%d rules use the set", s.use)
	}
	for _, e := range s.elements {
		if err := tx.refer(t, e.Verdict, -1); err != nil {
			return err
		}
	}
	delete(t.sets, name)
	return nil
}

// refer counts a reference of a verdict to a chain.
func (tx *fakeTx) refer(t *fakeTable, v Verdict, n int) error {
	if v.Kind != VerdictJump && v.Kind != VerdictGoto {
		return nil
	}
	c, err := tx.chain(t, v.Chain)
	if err != nil {
		return err
	}
	if c.base() {
		return fmt.Errorf("%s is a base chain", v.Chain)
	}
	c.use += n
	return nil
}

func (tx *fakeTx) addElements(t *fakeTable, op AddElements) error {
	s, err := tx.set(t, op.Set.Name)
	if err != nil {
		return err
	}
	if op.Set.header() != s.header() {
		return fmt.Errorf("elements of %q for a set of %q", op.Set.header(), s.header())
	}
	if _, err := kernelElements(op.Set, op.Elements); err != nil {
		return err
	}
	for _, e := range op.Elements {
		added, err := s.add(e)
		if err != nil {
			return fmt.Errorf("%s: %w", s.elementText(e), err)
		}
		if !added {
			continue
		}
		if err := tx.refer(t, e.Verdict, 1); err != nil {
			return err
		}
	}
	return nil
}

// errExists is the EEXIST of the kernel.
var errExists = errors.New("exists with another range or verdict")

// add reports whether e is new.
func (s *fakeSet) add(e Element) (bool, error) {
	if len(e.Key) != s.Type.size() || len(e.Last) != s.Type.size() || e.Last < e.Key || !s.Interval && e.Last != e.Key {
		return false, errors.New("the key does not fit the set")
	}
	if s.Map == (e.Verdict.Kind == VerdictNone) {
		return false, errors.New("the verdict does not fit the set")
	}
	if have, ok := s.elements[e.Key]; ok {
		have.Timeout = e.Timeout // which is no part of what the kernel compares
		if have != e {
			return false, errExists
		}
		s.elements[e.Key] = e
		return false, nil
	}
	if s.Interval {
		i, _ := slices.BinarySearch(s.starts, e.Key)
		if i > 0 && s.elements[s.starts[i-1]].Last >= e.Key || i < len(s.starts) && s.starts[i] <= e.Last {
			return false, errors.New("overlaps another range")
		}
		s.starts = slices.Insert(s.starts, i, e.Key)
	}
	s.elements[e.Key] = e
	return true, nil
}

func (tx *fakeTx) delElements(t *fakeTable, op DelElements) error {
	s, err := tx.set(t, op.Set.Name)
	if err != nil {
		return err
	}
	for _, e := range op.Elements {
		have, ok := s.elements[e.Key]
		if !ok || have.Last != e.Last {
			return fmt.Errorf("%s is not in the set", s.Type.keyText(e.Key))
		}
		if err := tx.refer(t, have.Verdict, -1); err != nil {
			return err
		}
		delete(s.elements, e.Key)
		if i, ok := slices.BinarySearch(s.starts, e.Key); ok {
			s.starts = slices.Delete(s.starts, i, i+1)
		}
	}
	return nil
}

// references counts what a rule uses.
func (tx *fakeTx) references(t *fakeTable, r Rule, n int) error {
	use := func(name string, vmap bool) error {
		s, err := tx.set(t, name)
		if err != nil {
			return err
		}
		if s.Map != vmap {
			return fmt.Errorf("%s is of the wrong kind", name)
		}
		s.use += n
		return nil
	}
	for _, m := range r.Match {
		if in, ok := m.(In); ok {
			if err := use(in.Set, false); err != nil {
				return err
			}
		}
	}
	switch a := r.Action.(type) {
	case Tally:
		if s := t.sets[a.Set]; s != nil && !s.Counts {
			return fmt.Errorf("%s does not count", a.Set)
		}
		return use(a.Set, false)
	case Vmap:
		return use(a.Map, true)
	case Verdict:
		return tx.refer(t, a, n)
	}
	return nil
}

func (tx *fakeTx) addRule(t *fakeTable, op AddRule) error {
	if _, err := op.Rule.exprs(); err != nil {
		return err
	}
	c, err := tx.chain(t, op.Chain)
	if err != nil {
		return err
	}
	if err := tx.references(t, op.Rule, 1); err != nil {
		return err
	}
	c.Rules = append(c.Rules, op.Rule)
	return nil
}

func (tx *fakeTx) flushChain(t *fakeTable, name string) error {
	c, err := tx.chain(t, name)
	if err != nil {
		return err
	}
	for _, r := range c.Rules {
		if err := tx.references(t, r, -1); err != nil {
			return err
		}
	}
	c.Rules = nil
	return nil
}

// delChain deletes a chain. The kernel would delete rules along with it, but
// refuses if more than those use the chain.
func (tx *fakeTx) delChain(t *fakeTable, name string) error {
	c, err := tx.chain(t, name)
	if err != nil {
		return err
	}
	if c.use > 0 {
		return fmt.Errorf("%d jumps lead to the chain", c.use)
	}
	if len(c.Rules) > 0 {
		return errors.New("the chain has rules")
	}
	delete(t.chains, name)
	return nil
}

func (t *fakeTable) snapshot(name string) *Table {
	out := &Table{Name: name}
	for _, c := range t.chains {
		out.Chains = append(out.Chains, &Chain{c.Name, c.Hook, c.Priority, slices.Clone(c.Rules)})
	}
	for _, s := range t.sets {
		set := s.Set
		set.Elements = slices.SortedFunc(maps.Values(s.elements), func(a, b Element) int { return cmp.Compare(a.Key, b.Key) })
		if s.Map {
			out.Maps = append(out.Maps, &set)
		} else {
			out.Sets = append(out.Sets, &set)
		}
	}
	out.sort()
	return out
}
