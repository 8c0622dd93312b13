package nft

import (
	"context"
	"errors"
	"strings"
)

// ErrUncertain says that it is not known what the kernel holds: a batch failed,
// or it cannot be told whether it did. The remedy is Enforcer.Repair.
var ErrUncertain = errors.New("the kernel's state is uncertain")

// ErrTooBig says that a batch does not fit the kernel's socket. Nothing was sent.
var ErrTooBig = errors.New("the batch is too big for the socket")

// ErrNotExist says that a table does not exist.
var ErrNotExist = errors.New("no such table")

// tablePrefix starts the name of every table of ours.
const tablePrefix = "portcullis-"

// ours reports whether a table of family inet belongs to us, by its name.
func ours(table string) bool { return strings.HasPrefix(table, tablePrefix) }

// Limits is what one batch may cost. The cost of a batch is the sum of the costs
// of its operations, see Op.
type Limits struct {
	// Bytes bounds what is sent (it is the size of the send buffer).
	Bytes int
	// Replies bounds what the kernel sends back, in bytes of the receive
	// buffer: the kernel answers every single message, and a reply that finds
	// no room is lost although the batch is committed.
	Replies int
	// Messages bounds the number of operations.
	Messages int
}

// Kernel is what an Enforcer needs of the kernel. An implementation works in one
// network namespace and sees only tables of family inet. But for Watch it is not
// safe for concurrent use.
type Kernel interface {
	// Tables returns the names of the tables that belong to us, sorted.
	Tables(ctx context.Context) ([]string, error)
	// BaseChains returns the names of a table's base chains, sorted, whatever
	// else the table holds.
	BaseChains(ctx context.Context, table string) ([]string, error)
	// Read returns a table. Where chains are named, only those are read, and
	// no sets. Sets that Expire are without their elements. What a rule holds
	// that this package does not know becomes Unknown. complete is false if the
	// kernel says that something changed while it was read, so that parts may be
	// missing.
	Read(ctx context.Context, table string, chains ...string) (t *Table, complete bool, err error)
	// Elements returns what a set holds, of elements with a Timeout the rest
	// of it, and in a set that Counts what was counted. A set of another name, or with another header, has no elements.
	Elements(ctx context.Context, table string, set *Set) ([]Element, error)
	// Send applies a batch as a whole or not at all. An error wraps
	// ErrUncertain, unless nothing was sent.
	Send(ctx context.Context, b Batch) error
	// Limits returns what a batch may cost.
	Limits() Limits
	// Grace returns when no packet is still on its way through the rules that
	// it entered before the last Send was committed.
	Grace(ctx context.Context) error
	// Watch calls changed whenever somebody else has changed or deleted one of
	// our tables, and whenever it cannot be told because notifications were
	// lost; never for what was sent through this Kernel, and never twice at a
	// time. Several changes may become one call. It calls ready, if not nil,
	// once, from when on no change is missed. It returns nil when ctx ends,
	// and an error if it cannot watch any longer. It may be called while the
	// other methods are, Close excepted.
	Watch(ctx context.Context, ready, changed func()) error
	// Close gives resources back. It changes no rule.
	Close() error
}
