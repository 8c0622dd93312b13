package spoof

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/nft/watch"
)

// tableName is the name of the only table, of family netdev, that this package
// touches, and which belongs to it alone.
const tableName = "portcullis"

const (
	// replyDeadline is far beyond the longest commit that was ever seen.
	replyDeadline = time.Minute
	// socketBuffer holds the kernel's replies to the largest batch, one for
	// each message and two for a rule, where the default would not.
	socketBuffer = 4 << 20
)

var table = &nftables.Table{Name: tableName, Family: nftables.TableFamilyNetdev}

// Guard binds devices to addresses in one network namespace. But for Watch it is not
// safe for concurrent use.
type Guard struct {
	netns  int
	reader *netlink.Conn
	// decoded are the rules that were read last, by their encoding.
	decoded map[string][]expr.Any
	conn    *nftables.Conn // nil after an error
	socket  *netlink.Conn  // that of conn
	watcher *watch.Watcher
	// last are the bindings that Set has made, by device.
	last    map[string]Binding
	repairs int
}

// Open opens the kernel of a network namespace, given by a file descriptor; 0
// means the one of the process. It needs CAP_NET_ADMIN over that namespace and
// changes nothing.
func Open(netns int) (*Guard, error) {
	reader, err := dialReader(netns)
	if err != nil {
		return nil, err
	}
	g := &Guard{netns: netns, reader: reader, watcher: watch.New(unix.NFPROTO_NETDEV, func(table string) bool { return table == tableName })}
	if _, err := g.observe(context.Background()); err != nil {
		return nil, errors.Join(fmt.Errorf("nftables of family netdev (this takes CAP_NET_ADMIN and a kernel with CONFIG_NF_TABLES_NETDEV): %w", err), g.Close())
	}
	return g, nil
}

// Close gives resources back. It changes no rule.
func (g *Guard) Close() error { return errors.Join(g.hangUp(), g.reader.Close()) }

// Set makes the bindings the only ones, whatever the kernel holds, and whoever put
// it there: it looks at the kernel, and then adds, changes and removes no more than
// what differs. Where nothing does, nothing is written.
//
// A changed binding is replaced at once: each packet meets the old rules or the
// new ones. The devices are independent of each other. What cannot be done for one
// is joined to the error, and everything else is done; a binding that makes no
// sense leaves its device as it is. After an error, call Set again.
//
// Looking takes about a fifth of a millisecond for each device that is bound.
func (g *Guard) Set(ctx context.Context, bindings []Binding) error {
	want, bad, errBindings := normalize(bindings)
	return errors.Join(errBindings, g.converge(ctx, want, bad))
}

// Repairs returns how often Set found that somebody else had changed what an earlier
// Set of this Guard had left.
func (g *Guard) Repairs() int { return g.repairs }

// Bindings returns what the kernel holds, sorted by device: what an earlier Set has
// bound, be it that of another process. Of a chain that somebody has changed it
// returns what can still be told.
func (g *Guard) Bindings(ctx context.Context) ([]Binding, error) {
	o, err := g.observe(ctx)
	if err != nil {
		return nil, err
	}
	var out []Binding
	for _, name := range slices.Sorted(maps.Keys(o.chains)) {
		c := o.chains[name]
		if checkDevice(c.hook.device) != nil || name != chainName(c.hook.device) {
			continue // no chain of ours
		}
		if b, err := (Binding{c.hook.device, c.addrs()}).normal(); err == nil {
			out = append(out, b)
		}
	}
	slices.SortFunc(out, func(a, b Binding) int { return strings.Compare(a.Device, b.Device) })
	return out, nil
}

// converge tries twice, because the kernel may have changed since it was looked
// at: before Linux 6.16 a chain goes with its device.
func (g *Guard) converge(ctx context.Context, want []Binding, keep map[string]bool) error {
	var errs []error
	for try := range 2 {
		have, err := g.observe(ctx)
		if err != nil {
			return err
		}
		errs = nil
		steps := have.steps(want, keep)
		if try == 0 && slices.ContainsFunc(steps, g.restores) {
			g.repairs++
		}
		for _, s := range steps {
			if err := ctx.Err(); err != nil {
				return errors.Join(append(errs, err)...)
			}
			if err := g.send(s); err != nil {
				errs = append(errs, err)
			}
		}
		if errs == nil {
			g.last = map[string]Binding{}
			for _, b := range want {
				g.last[b.Device] = b
			}
			return nil
		}
	}
	return errors.Join(errs...)
}

// restores reports whether a step does again what was done before.
func (g *Guard) restores(s step) bool {
	was, ok := g.last[s.binding.Device]
	return ok && slices.Equal(was.Addrs, s.binding.Addrs)
}

// Cleanup removes the table and with it all bindings.
func (g *Guard) Cleanup(ctx context.Context) error {
	have, err := g.observe(ctx)
	if err != nil || !have.exists {
		return err
	}
	return g.send(step{what: "table " + tableName, write: func(c *nftables.Conn) { c.DelTable(table) }})
}

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
		name := chainName(b.Device)
		wanted[name] = true
		if s, needed := o.step(name, b); needed {
			out = append(out, s)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(o.chains)) {
		if !wanted[name] {
			out = append(out, step{what: "chain " + name, write: func(c *nftables.Conn) { deleteChain(c, name) }})
		}
	}
	return out
}

// step returns what it takes to give a device its rules.
func (o *observed) step(name string, b Binding) (s step, needed bool) {
	have, exists := o.chains[name]
	rules := b.rules()
	s.what, s.binding = "device "+b.Device, b
	switch {
	case exists && have.hook == hookOf(b.Device) && have.holds(rules):
		return s, false
	case exists && have.hook == hookOf(b.Device):
		// The chain's rules are exchanged as one.
		s.write = func(c *nftables.Conn) {
			c.FlushChain(&nftables.Chain{Table: table, Name: name})
			addRules(c, name, rules)
		}
	default:
		s.write = func(c *nftables.Conn) {
			c.AddTable(table)
			if exists {
				deleteChain(c, name)
			}
			addChain(c, name, b.Device)
			addRules(c, name, rules)
		}
	}
	return s, true
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

// send applies one step. After an error the connection is not used again: an
// error of encoding would stick to it, and replies may still be on their way.
func (g *Guard) send(s step) error {
	if g.conn == nil {
		if err := g.dial(); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	err := g.socket.SetDeadline(time.Now().Add(replyDeadline))
	if err == nil {
		s.write(g.conn)
		err = firstError(g.conn.Flush())
	}
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", s.what, err), g.hangUp())
	}
	return nil
}

func (g *Guard) dial() error {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(g.netns), nftables.WithSockOptions(func(c *netlink.Conn) error {
		g.socket = c
		return errors.Join(c.SetReadBuffer(socketBuffer), c.SetWriteBuffer(socketBuffer))
	}))
	if err != nil {
		g.socket = nil
		return fmt.Errorf("netlink socket: %w", err)
	}
	if err := g.watcher.Ignore(g.socket); err != nil {
		g.socket = nil
		return errors.Join(err, conn.CloseLasting())
	}
	g.conn = conn
	return nil
}

// Watch calls changed, never twice at a time, when somebody else has changed the
// table, or may have done so unnoticed, until ctx ends; then it returns nil. It calls
// ready once when from then on nothing is missed. It may run beside all other methods.
func (g *Guard) Watch(ctx context.Context, ready, changed func()) error {
	return g.watcher.Watch(ctx, g.netns, socketBuffer, ready, changed)
}

func (g *Guard) hangUp() error {
	if g.conn == nil {
		return nil
	}
	conn := g.conn
	g.conn, g.socket = nil, nil
	return conn.CloseLasting()
}

// firstError returns the first of the errors that Flush joins, one for each
// message of the batch that failed because of an earlier one.
func firstError(err error) error {
	for {
		list, ok := err.(interface{ Unwrap() []error })
		if !ok || len(list.Unwrap()) == 0 {
			return err
		}
		err = list.Unwrap()[0]
	}
}
