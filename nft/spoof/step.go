package spoof

import (
	"maps"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
)

// step is one batch. It is atomic, and leaves every device with all its rules or
// with none.
type step struct {
	what    string
	binding Binding // what the step is for, if it is for one
	write   func(*nftables.Conn)
}

// steps returns what it takes to get from what the kernel holds to the bindings,
// which are sorted and normal. Devices in keep are left as they are.
func (o *observed) steps(want []Binding, keep map[string]bool) []step {
	var out []step
	if o.dormant {
		// Somebody has put all chains to sleep. Adding a table that exists
		// sets its flags.
		out = append(out, step{what: "table " + tableName, write: func(c *nftables.Conn) { c.AddTable(table) }})
	}
	wanted := map[string]bool{}
	for device := range keep {
		wanted[chainName(device)] = true
	}
	for _, b := range want {
		wanted[chainName(b.Device)] = true
		if s, needed := o.step(b); needed {
			out = append(out, s)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(o.chains)) {
		if !wanted[name] {
			out = append(out, removal(name))
		}
	}
	return out
}

// removal removes a chain.
func removal(name string) step {
	return step{what: "chain " + name, write: func(c *nftables.Conn) { deleteChain(c, name) }}
}

// renewal gives a device its rules, whether there is a chain for it or not: to add one
// that is there and hooked in where it should be changes nothing.
func renewal(b Binding) step {
	name := chainName(b.Device)
	return step{what: "device " + b.Device, binding: b, write: func(c *nftables.Conn) {
		c.AddTable(table)
		addChain(c, name, b.Device)
		exchange(b).write(c)
	}}
}

// exchange replaces the rules of a device's chain, which is there, as one.
func exchange(b Binding) step {
	name := chainName(b.Device)
	return step{what: "device " + b.Device, binding: b, write: func(c *nftables.Conn) {
		c.FlushChain(&nftables.Chain{Table: table, Name: name})
		addRules(c, name, b.rules())
	}}
}

// step returns what it takes to give a device its rules.
func (o *observed) step(b Binding) (s step, needed bool) {
	name := chainName(b.Device)
	have, exists := o.chains[name]
	switch {
	case !exists:
		return renewal(b), true
	case have.hook != hookOf(b.Device):
		s = renewal(b)
		add := s.write
		s.write = func(c *nftables.Conn) {
			deleteChain(c, name)
			add(c)
		}
		return s, true
	}
	return exchange(b), !have.holds(b.rules())
}

// addChain adds a base chain. Its policy is to accept: from when it is hooked in
// until the batch is committed it is empty.
func addChain(c *nftables.Conn, name, device string) {
	policy := nftables.ChainPolicyAccept
	c.AddChain(&nftables.Chain{
		Table: table, Name: name, Device: device, Policy: &policy,
		Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityFirst,
	})
}

func addRules(c *nftables.Conn, chain string, rules []rule) {
	for _, r := range rules {
		c.AddRule(&nftables.Rule{
			Table: table, Chain: &nftables.Chain{Table: table, Name: chain}, Exprs: r.exprs,
			UserData: userdata.AppendString(nil, userdata.TypeComment, r.comment),
		})
	}
}

func deleteChain(c *nftables.Conn, name string) {
	c.FlushChain(&nftables.Chain{Table: table, Name: name})
	c.DelChain(&nftables.Chain{Table: table, Name: name})
}
