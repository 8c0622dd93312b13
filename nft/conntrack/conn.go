package conntrack

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// attempts is how often a request is sent whose answer was incomplete.
const attempts = 5

// Conn reads and changes the connection tracking table of one network namespace.
// It is not safe for concurrent use, but Delete may be called by what Flows and
// All call.
type Conn struct {
	netns int
	// walk is for dumps, control for everything else, so that entries can be
	// deleted during a dump. Each is nil while it is not needed, or after an
	// error that left the answer unread.
	walk, control *socket
	// filters says of each family what is known of the kernel's filter.
	filters map[uint8]trust
	// dialect is how the filter is spoken; tests speak it as kernels do not know it.
	dialect dialect
}

// Open returns a Conn for the network namespace that the descriptor leads to; 0
// means the one of the process. The descriptor must stay open as long as the
// Conn. It takes CAP_NET_ADMIN over that namespace and a kernel with
// nf_conntrack_netlink, and says so if one is missing. Opening does not switch
// connection tracking on.
func Open(netns int) (*Conn, error) {
	if netns < 0 {
		return nil, fmt.Errorf("network namespace: %d is no file descriptor", netns)
	}
	c := &Conn{netns: netns, filters: map[uint8]trust{}, dialect: dialect{attrFilter, filterSource}}
	if _, err := c.Active(context.Background()); err != nil {
		return nil, errors.Join(fmt.Errorf("connection tracking (this takes CAP_NET_ADMIN and a kernel with nf_conntrack_netlink): %w", err), c.Close())
	}
	return c, nil
}

// Close releases the sockets.
func (c *Conn) Close() error { return errors.Join(hangUp(&c.walk), hangUp(&c.control)) }

func hangUp(s **socket) error {
	if *s == nil {
		return nil
	}
	err := (*s).file.Close()
	*s = nil
	return err
}

// ask sends a request on one of the sockets, until its answer is complete.
func (c *Conn) ask(ctx context.Context, s **socket, kind, flags uint16, family uint8, attrs func(*writer), handle func([]byte)) error {
	var err error
	for range attempts {
		if *s == nil {
			if *s, err = dial(c.netns); err != nil {
				return err
			}
		}
		var clean bool
		clean, err = (*s).ask(ctx, kind, flags, family, attrs, handle)
		if !clean {
			err = errors.Join(err, hangUp(s))
		}
		if !errors.Is(err, errIncomplete) {
			return err
		}
	}
	return err
}

// Active reports whether the table has an entry, of whatever protocol. While
// nothing asks the kernel for connection tracking in the namespace, it has none.
func (c *Conn) Active(ctx context.Context) (bool, error) {
	n, err := c.count(ctx)
	return n > 0, err
}

// count returns the number of entries.
func (c *Conn) count(ctx context.Context) (uint32, error) {
	n, ok := uint32(0), false
	err := c.ask(ctx, &c.control, msgGetStats, unix.NLM_F_ACK, unix.AF_UNSPEC, nil, func(body []byte) {
		for kind, v := range attributes(body[min(familyHeader, len(body)):]) {
			if kind == attrStatsEntries && len(v) == 4 {
				n, ok = binary.BigEndian.Uint32(v), true
			}
		}
	})
	if err == nil && !ok {
		err = errMalformed
	}
	if err != nil {
		return 0, fmt.Errorf("count conntrack entries: %w", err)
	}
	return n, nil
}

// Delete removes the flow's entry. That it is gone already is no error, and an
// entry that has taken its place since is not touched: it has another ID. The
// kernel makes IDs of the entry's tuple and its place in memory, so one in four
// thousand million might be the same.
func (c *Conn) Delete(ctx context.Context, f Flow) error {
	// To the kernel a deletion without a tuple is one of the whole table: nothing
	// that comes near it is sent.
	if !f.Client.IsValid() || !f.called.Addr().IsValid() {
		return errors.New("delete conntrack entry: the flow is not one that was read")
	}
	err := c.ask(ctx, &c.control, msgDelete, unix.NLM_F_ACK, familyOf(f.Client), func(w *writer) {
		w.original(f)
		w.uint32(attrID, f.id)
	}, func([]byte) {})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete conntrack entry: %w", err)
	}
	return nil
}

// All calls fn for every TCP, UDP and SCTP flow. Flows that begin or end while
// All runs may be left out, and one may come twice. Memory does not grow with
// the table.
func (c *Conn) All(ctx context.Context, fn func(Flow)) error {
	return c.dump(ctx, unix.AF_UNSPEC, nil, func(f Flow) {
		if judged(f.Protocol) {
			fn(f)
		}
	})
}

// dump calls fn for every entry that the kernel tells of, whatever its protocol.
func (c *Conn) dump(ctx context.Context, family uint8, attrs func(*writer), fn func(Flow)) error {
	err := c.ask(ctx, &c.walk, msgGet, unix.NLM_F_DUMP, family, attrs, func(body []byte) {
		if f, ok := parseFlow(body); ok {
			fn(f)
		}
	})
	if err != nil {
		return fmt.Errorf("list conntrack entries: %w", err)
	}
	return nil
}

// refused reports whether err is the kernel's answer to something that it does
// not know.
func refused(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && (errno == unix.EINVAL || errno == unix.EOPNOTSUPP || errno == unix.ERANGE)
}

// Flows calls fn for every TCP, UDP and SCTP flow whose Client or Server is
// addr, as FlowsOf does.
func (c *Conn) Flows(ctx context.Context, addr netip.Addr, fn func(Flow)) error {
	return c.FlowsOf(ctx, []netip.Addr{addr}, fn)
}
