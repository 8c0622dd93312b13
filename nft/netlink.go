package nft

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/nft/watch"
)

// This file and dump.go are where the peculiarities of google/nftables v0.3.0
// and of the netlink socket are dealt with:
//
//   - It lets the 16-bit length of an attribute wrap around: AddElements are cut
//     to size by the planner, and Send refuses those that are not.
//   - The kernel acknowledges every message. If the receive buffer is full, the
//     rest of the replies is lost and Flush fails, although the batch is
//     committed. So the buffers are as large as the kernel grants, and a batch
//     that could overrun them is refused. Should a kernel need more room than is
//     reckoned with here, the bound shrinks by what failed.
//   - Flush waits for as many replies as it sent messages. Where the kernel
//     refuses a batch as a whole it sends fewer, so there is a deadline.
//   - An error of encoding sticks to a Conn for ever, and after any other error
//     replies may still be on their way: every error is followed by a new Conn.
//   - It takes the IDs of sets from an unguarded global counter, unless they are set.
const (
	// wantBuffer is asked for; without CAP_NET_ADMIN in the first user
	// namespace the kernel grants net.core.{r,w}mem_max. It bounds memory
	// and does not take it.
	wantBuffer = 256 << 20
	// maxMessages keeps the transactions of the planner short: kube-proxy
	// waits for them too, as they share one mutex for each network namespace.
	maxMessages = 5000
	// replyDeadline is far beyond the longest commit that was ever seen (9 s).
	replyDeadline = time.Minute
	// graceFallback is used where the kernel has no membarrier.
	graceFallback = 100 * time.Millisecond
)

// kernel is the Kernel that talks to Linux.
type kernel struct {
	netns  int
	buffer int // what to ask for
	conn   *nftables.Conn
	socket *netlink.Conn // that of conn
	reader *reader
	limits Limits
	// ceiling lowers the limits to what was seen to work; 0 is none.
	ceiling Limits
	watcher *watch.Watcher
}

// OpenKernel opens the kernel of the network namespace cfg.NetNS. It needs
// CAP_NET_ADMIN over that namespace.
func OpenKernel(cfg Config) (Kernel, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return openKernel(cfg.NetNS, wantBuffer)
}

func openKernel(netns, buffer int) (*kernel, error) {
	k := &kernel{netns: netns, buffer: buffer, watcher: watch.New(unix.NFPROTO_INET, ours)}
	if err := k.dial(); err != nil {
		return nil, err
	}
	// Reading takes the same capability as writing.
	if _, err := k.Tables(context.Background()); err != nil {
		return nil, errors.Join(fmt.Errorf("nftables (this takes CAP_NET_ADMIN and a kernel with nf_tables): %w", err), k.Close())
	}
	return k, nil
}

func (k *kernel) dial() error {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(k.netns), nftables.WithSockOptions(func(c *netlink.Conn) error {
		k.socket = c
		if err := c.SetWriteBuffer(k.buffer); err != nil {
			return fmt.Errorf("write buffer: %w", err)
		}
		if err := c.SetReadBuffer(k.buffer); err != nil {
			return fmt.Errorf("read buffer: %w", err)
		}
		return nil
	}))
	if err != nil {
		return fmt.Errorf("netlink socket: %w", err)
	}
	limits, err := bufferLimits(k.socket)
	if err != nil {
		return errors.Join(err, conn.CloseLasting())
	}
	if err := k.watcher.Ignore(k.socket); err != nil {
		return errors.Join(err, conn.CloseLasting())
	}
	k.conn, k.limits = conn, limits.below(k.ceiling)
	return nil
}

// below lowers l to what is not 0 in ceiling.
func (l Limits) below(ceiling Limits) Limits {
	if ceiling.Bytes > 0 {
		l.Bytes = min(l.Bytes, ceiling.Bytes)
	}
	if ceiling.Replies > 0 {
		l.Replies = min(l.Replies, ceiling.Replies)
	}
	return l
}

// bufferLimits turns the granted buffers into what a batch may cost.
func bufferLimits(c *netlink.Conn) (Limits, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Limits{}, fmt.Errorf("netlink socket: %w", err)
	}
	var send, receive int
	var errSend, errReceive error
	err = raw.Control(func(fd uintptr) {
		send, errSend = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF)
		receive, errReceive = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
	})
	if err := errors.Join(err, errSend, errReceive); err != nil {
		return Limits{}, fmt.Errorf("size of the socket's buffers: %w", err)
	}
	// The kernel keeps 32 bytes of the send buffer for itself.
	return Limits{Bytes: send - 1024, Replies: receive - 16*replyCost, Messages: maxMessages}, nil
}

func (k *kernel) Limits() Limits { return k.limits }

func (k *kernel) Close() error {
	var errs error
	if k.conn != nil {
		errs = k.conn.CloseLasting()
		k.conn, k.socket = nil, nil
	}
	if k.reader != nil {
		errs = errors.Join(errs, k.reader.conn.Close())
		k.reader = nil
	}
	return errs
}

// Grace uses membarrier, whose plain form waits for a grace period of RCU: the
// kernel walks a packet through all its hooks inside one read-side section.
func (k *kernel) Grace(ctx context.Context) error {
	const global = 1 // MEMBARRIER_CMD_GLOBAL
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0); errno == 0 {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(graceFallback):
		return nil
	}
}

// Send implements Kernel.
func (k *kernel) Send(ctx context.Context, b Batch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(b.Ops) == 0 {
		return nil
	}
	if c := b.cost(); c.Bytes > k.limits.Bytes || c.Replies > k.limits.Replies {
		return fmt.Errorf("%w: %d operations take %+v of %+v", ErrTooBig, len(b.Ops), c, k.limits)
	}
	if k.conn == nil {
		if err := k.dial(); err != nil {
			return err
		}
	}
	err := k.encode(b)
	if err != nil {
		return errors.Join(fmt.Errorf("encode: %w", err), k.hangUp())
	}
	if err := k.socket.SetDeadline(time.Now().Add(replyDeadline)); err != nil {
		return errors.Join(fmt.Errorf("deadline: %w", err), k.hangUp())
	}
	if err := k.conn.Flush(); err != nil {
		k.shrink(b, err)
		return errors.Join(fmt.Errorf("%w: batch of %d operations on table %s: %w", ErrUncertain, len(b.Ops), b.Table, firstError(err)), k.hangUp())
	}
	return nil
}

// shrink lowers the limits if a batch that they allow did not fit after all.
func (k *kernel) shrink(b Batch, err error) {
	c := b.cost()
	switch {
	case errors.Is(err, unix.ENOBUFS):
		k.ceiling.Replies = c.Replies / 2
	case errors.Is(err, unix.EMSGSIZE):
		k.ceiling.Bytes = c.Bytes / 2
	default:
		return
	}
	k.limits = k.limits.below(k.ceiling)
}

// hangUp throws the connection away; the next Send makes a new one.
func (k *kernel) hangUp() error {
	conn := k.conn
	k.conn, k.socket = nil, nil
	return conn.CloseLasting()
}

// firstError returns the innermost first of the errors that Flush joins, one for
// each message that failed because of an earlier one.
func firstError(err error) error {
	for {
		switch e := err.(type) {
		case interface{ Unwrap() []error }:
			list := e.Unwrap()
			if len(list) == 0 {
				return err
			}
			err = list[0]
		case interface{ Unwrap() error }:
			if e.Unwrap() == nil {
				return err
			}
			err = e.Unwrap()
		default:
			return err
		}
	}
}

// encode puts the operations into the connection's queue.
func (k *kernel) encode(b Batch) error {
	t := &nftables.Table{Name: b.Table, Family: nftables.TableFamilyINet}
	for i, op := range b.Ops {
		if err := k.encodeOp(t, op, uint32(i+1)); err != nil {
			return fmt.Errorf("operation %d: %w", i+1, err)
		}
	}
	return nil
}

func (k *kernel) encodeOp(t *nftables.Table, op Op, id uint32) error {
	switch op := op.(type) {
	case AddTable:
		k.conn.CreateTable(t)
	case DelTable:
		k.conn.DelTable(t)
	case AddSet:
		s, err := kernelSet(t, op.Set)
		if err != nil {
			return err
		}
		s.ID = id
		return k.conn.AddSet(s, nil)
	case DelSet:
		k.conn.DelSet(&nftables.Set{Table: t, Name: op.Name})
	case AddElements:
		elements, err := kernelElements(op.Set, op.Elements)
		if err != nil {
			return err
		}
		return k.conn.SetAddElements(&nftables.Set{Table: t, Name: op.Set.Name, HasTimeout: op.Set.Expires}, elements)
	case DelElements:
		elements, err := kernelElements(op.Set, op.Elements)
		if err != nil {
			return err
		}
		for i := range elements {
			elements[i].VerdictData = nil
		}
		return k.conn.SetDeleteElements(&nftables.Set{Table: t, Name: op.Set.Name}, elements)
	case AddChain:
		return k.encodeChain(t, op.Chain)
	case FlushChain:
		k.conn.FlushChain(&nftables.Chain{Table: t, Name: op.Name})
	case DelChain:
		k.conn.DelChain(&nftables.Chain{Table: t, Name: op.Name})
	case AddRule:
		return k.encodeRule(t, op)
	default:
		return fmt.Errorf("unknown operation %T", op)
	}
	return nil
}

func (k *kernel) encodeRule(t *nftables.Table, op AddRule) error {
	exprs, err := op.Rule.exprs()
	if err != nil {
		return fmt.Errorf("rule %q: %w", op.Rule, err)
	}
	r := &nftables.Rule{Table: t, Chain: &nftables.Chain{Table: t, Name: op.Chain}, Exprs: exprs}
	if op.Rule.Comment != "" {
		r.UserData = userdata.AppendString(nil, userdata.TypeComment, op.Rule.Comment)
	}
	k.conn.AddRule(r)
	return nil
}

var kernelHooks = map[Hook]*nftables.ChainHook{
	HookForward:    nftables.ChainHookForward,
	HookInput:      nftables.ChainHookInput,
	HookOutput:     nftables.ChainHookOutput,
	HookPrerouting: nftables.ChainHookPrerouting,
}

func (k *kernel) encodeChain(t *nftables.Table, c *Chain) error {
	nc := &nftables.Chain{Table: t, Name: c.Name}
	if c.base() {
		hook, ok := kernelHooks[c.Hook]
		if !ok {
			return fmt.Errorf("chain %s: hook %s", c.Name, c.Hook)
		}
		policy := nftables.ChainPolicyAccept
		nc.Type, nc.Hooknum, nc.Policy = nftables.ChainTypeFilter, hook, &policy
		nc.Priority = nftables.ChainPriorityRef(nftables.ChainPriority(c.Priority))
	}
	k.conn.AddChain(nc)
	return nil
}
