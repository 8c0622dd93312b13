package nft

// Op is one change of a table, one netlink message: one of AddTable, DelTable,
// AddSet, DelSet, AddElements, DelElements, AddChain, FlushChain, DelChain and
// AddRule. The words are nft's own.
type Op interface {
	// cost returns the bytes of the message and of the replies to it, both
	// rather too high than too low.
	cost() (bytes, replies int)
}

// Batch is a list of changes of one table that the kernel applies as a whole or
// not at all.
type Batch struct {
	Table string
	Ops   []Op
}

// AddTable creates the table; it must not exist.
type AddTable struct{}

// DelTable deletes the table with all that it holds.
type DelTable struct{}

// AddSet creates a set or map without elements; the Elements of Set are ignored.
type AddSet struct{ Set *Set }

// DelSet deletes a set or map, which no rule may use.
type DelSet struct{ Name string }

// AddElements adds elements to a set or map; the Elements of Set are ignored.
// Adding what is already there is no error unless the verdict differs.
type AddElements struct {
	Set      *Set
	Elements []Element
}

// DelElements deletes elements, all of which must exist.
type DelElements struct {
	Set      *Set
	Elements []Element
}

// AddChain creates a chain without rules; the Rules of Chain are ignored.
type AddChain struct{ Chain *Chain }

// FlushChain deletes the rules of a chain.
type FlushChain struct{ Name string }

// DelChain deletes a chain that has no rules and that nothing jumps to.
type DelChain struct{ Name string }

// AddRule appends a rule to a chain.
type AddRule struct {
	Chain string
	Rule  Rule
}

const (
	// maxElements and maxElementBytes bound one message: the elements stand in
	// one netlink attribute, whose 16-bit length google/nftables v0.3.0 lets
	// wrap around, so that 5,000 elements become 904 without an error.
	maxElements     = 1000
	maxElementBytes = 48 << 10

	// A reply of the kernel to one message is a socket buffer of 768 bytes on
	// 64-bit machines; the rest is reserve.
	replyCost = 1024
	// opCost is a netlink message without what makes it long.
	opCost = 320
	// exprCost is one expression of a rule, the longest being a lookup.
	exprCost = 96
)

func (AddTable) cost() (int, int)   { return opCost, replyCost }
func (DelTable) cost() (int, int)   { return opCost, replyCost }
func (AddSet) cost() (int, int)     { return 2 * opCost, replyCost }
func (DelSet) cost() (int, int)     { return 2 * opCost, replyCost }
func (AddChain) cost() (int, int)   { return 2 * opCost, replyCost }
func (FlushChain) cost() (int, int) { return 2 * opCost, replyCost }
func (DelChain) cost() (int, int)   { return 2 * opCost, replyCost }

func (o AddElements) cost() (int, int) {
	n := 2 * opCost
	for _, e := range o.Elements {
		n += elementBytes(e)
	}
	return n, replyCost
}

func (o DelElements) cost() (int, int) {
	n := 2 * opCost
	for _, e := range o.Elements {
		n += elementBytes(e)
	}
	return n, replyCost
}

// cost counts a rule's replies twice: google/nftables asks for every rule to be
// echoed.
func (o AddRule) cost() (int, int) {
	n := 2*opCost + len(o.Rule.Comment)
	for _, m := range o.Rule.Match {
		n += 8 * exprCost
		if in, ok := m.(In); ok {
			n += len(in.Set)
		}
	}
	n += 5 * exprCost
	switch a := o.Rule.Action.(type) {
	case Vmap:
		n += len(a.Map)
	case Verdict:
		n += len(a.Chain)
	case Tally:
		n += len(a.Set)
	case Log:
		n += len(a.Prefix)
	}
	return n, replyCost + 2*n
}

// elementBytes bounds what an element takes in a message.
func elementBytes(e Element) int {
	n := 32 + len(e.Key)
	if e.Last != e.Key {
		n += 32 + len(e.Last)
	}
	if e.Verdict.Kind != VerdictNone {
		n += 40 + len(e.Verdict.Chain)
	}
	if e.Timeout != 0 {
		n += 12
	}
	return n
}

// cost returns what b takes of Limits.
func (b Batch) cost() Limits {
	c := Limits{Messages: len(b.Ops)}
	for _, op := range b.Ops {
		bytes, replies := op.cost()
		c.Bytes += bytes
		c.Replies += replies
	}
	return c
}
