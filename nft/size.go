package nft

// size counts what is in a table, by what is sent to it.
type size struct {
	// rules are by chain, elements by set: there is an entry for each.
	rules, elements   map[string]int
	nRules, nElements int
}

// sizeOf counts what a table holds that was built.
func sizeOf(t *Table) *size {
	s := &size{rules: map[string]int{}, elements: map[string]int{}}
	for _, c := range t.Chains {
		s.countRules(c.Name, len(c.Rules))
	}
	for _, list := range [][]*Set{t.Sets, t.Maps} {
		for _, set := range list {
			s.countElements(set, len(set.Elements))
		}
	}
	return s
}

func (s *size) countRules(chain string, n int) {
	s.rules[chain] += n
	s.nRules += n
}

// countElements leaves out those that come and go by themselves.
func (s *size) countElements(set *Set, n int) {
	if set.Expires {
		n = 0
	}
	s.elements[set.Name] += n
	s.nElements += n
}

// apply counts what a batch changes.
func (s *size) apply(b Batch) {
	for _, op := range b.Ops {
		switch op := op.(type) {
		case AddSet:
			s.countElements(op.Set, 0)
		case DelSet:
			s.nElements -= s.elements[op.Name]
			delete(s.elements, op.Name)
		case AddElements:
			s.countElements(op.Set, len(op.Elements))
		case DelElements:
			s.countElements(op.Set, -len(op.Elements))
		case AddChain:
			s.countRules(op.Chain.Name, 0)
		case AddRule:
			s.countRules(op.Chain, 1)
		case FlushChain:
			s.countRules(op.Name, -s.rules[op.Name])
		case DelChain:
			delete(s.rules, op.Name)
		}
	}
}

// Size returns how many rules, sets (with maps) and elements the table in force has, as
// far as they were sent to the kernel, those included that wait for Tidy. Elements that
// come and go by themselves do not count: what is forbidden, and who was denied. It is 0
// before the first Takeover, and after an error what it was, more or less, until Repair.
func (e *Enforcer) Size() (rules, sets, elements int) {
	if e.size == nil {
		return 0, 0, 0
	}
	return e.size.nRules, len(e.size.elements), e.size.nElements
}
