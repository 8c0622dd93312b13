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
	// last is what was made last, by device. It is what the kernel holds, as far as
	// is known, while trusted is set.
	last    map[string]made
	trusted bool
	repairs int
}

// made is a binding that was made, with the index of the device that had the name then.
type made struct {
	Binding
	index int // 0 if it is not known
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
	g.Doubt()
	return g.Update(ctx, bindings, nil)
}

// Update does what Set does, but where nothing speaks against it takes the kernel to hold
// what this Guard has made last, and writes the difference without looking. Then it costs
// what has changed. Indexes are those of the devices, by name: of one that has another
// index than the last time only the name is the same, and its rules are made anew.
//
// It looks if it never has, if an index is missing, after an error, and after Doubt. Who
// calls it sees to it that Doubt is called when Watch tells of somebody else's changes,
// and now and then.
func (g *Guard) Update(ctx context.Context, bindings []Binding, indexes map[string]int) error {
	want, bad, errBindings := normalize(bindings)
	for _, b := range want {
		g.trusted = g.trusted && indexes[b.Device] != 0
	}
	if g.trusted && g.change(ctx, want, bad, indexes) == nil {
		return errBindings
	}
	// Whatever was wrong with the change, what is there now has to be seen first.
	return errors.Join(errBindings, g.converge(ctx, want, bad, indexes))
}

// Doubt has the next Update look at what the kernel holds.
func (g *Guard) Doubt() { g.trusted = false }

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
func (g *Guard) converge(ctx context.Context, want []Binding, keep map[string]bool, indexes map[string]int) error {
	g.trusted = false
	var errs []error
	for try := range 2 {
		have, err := g.observe(ctx)
		if err != nil {
			return err
		}
		errs = nil
		steps := have.steps(want, keep)
		if try == 0 && slices.ContainsFunc(steps, func(s step) bool { return g.restores(s, indexes) }) {
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
			g.remember(want, keep, indexes)
			return nil
		}
	}
	return errors.Join(errs...)
}

// restores reports whether a step does again what was done before, to the same device.
func (g *Guard) restores(s step, indexes map[string]int) bool {
	was, ok := g.last[s.binding.Device]
	index := indexes[s.binding.Device]
	return ok && slices.Equal(was.Addrs, s.binding.Addrs) && (was.index == 0 || index == 0 || was.index == index)
}

// remember notes that the kernel holds want, and of the devices in keep what it held.
func (g *Guard) remember(want []Binding, keep map[string]bool, indexes map[string]int) {
	last := map[string]made{}
	for device := range keep {
		if was, ok := g.last[device]; ok {
			last[device] = was
		}
	}
	for _, b := range want {
		last[b.Device] = made{b, indexes[b.Device]}
	}
	g.last, g.trusted = last, true
}

// change writes what differs from what was made last. After an error, which is rare, it
// is not known what the kernel holds.
func (g *Guard) change(ctx context.Context, want []Binding, keep map[string]bool, indexes map[string]int) error {
	g.trusted = false
	gone := maps.Clone(g.last)
	for device := range keep {
		delete(gone, device)
	}
	for _, b := range want {
		was, ok := g.last[b.Device]
		delete(gone, b.Device)
		s := renewal(b)
		if ok && was.index == indexes[b.Device] {
			if slices.Equal(was.Addrs, b.Addrs) {
				continue
			}
			s = exchange(b)
		}
		if err := errors.Join(ctx.Err(), g.send(s)); err != nil {
			return err
		}
	}
	for _, device := range slices.Sorted(maps.Keys(gone)) {
		err := g.send(removal(chainName(device)))
		if errors.Is(err, unix.ENOENT) {
			err = nil // before Linux 6.16 it has gone with its device
		}
		if err = errors.Join(ctx.Err(), err); err != nil {
			return err
		}
	}
	g.remember(want, keep, indexes)
	return nil
}

// Cleanup removes the table and with it all bindings.
func (g *Guard) Cleanup(ctx context.Context) error {
	g.Doubt()
	have, err := g.observe(ctx)
	if err != nil || !have.exists {
		return err
	}
	return g.send(step{what: "table " + tableName, write: func(c *nftables.Conn) { c.DelTable(table) }})
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
