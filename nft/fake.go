package nft

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// ErrRefused says that a Fake refused an operation, as the kernel would have.
var ErrRefused = errors.New("refused")

// Fake is a Kernel in memory. It refuses what the kernel refuses, and a batch of
// which one operation is refused changes nothing. It is stricter than the kernel
// in one point: an object that exists must not be added again, elements excepted.
//
// It may be used concurrently.
type Fake struct {
	// OnSend, if not nil, is called in front of every batch that is not empty.
	// An error that wraps ErrUncertain is returned by Send after the batch was
	// applied, any other error in its place.
	OnSend func(Batch) error
	// Limit is what Limits returns; NewFake sets it to what root gets.
	Limit Limits

	mu       sync.Mutex
	tables   map[string]*fakeTable
	history  []Event
	watchers map[chan struct{}]bool
}

// Event is one thing that a Fake was told: a batch, or a wait for packets on
// their way.
type Event struct {
	// Grace is set for a call of Grace; Batch is empty then.
	Grace bool
	Batch Batch
	// Err is what became of the batch.
	Err error
}

// NewFake returns a Fake without tables.
func NewFake() *Fake {
	return &Fake{tables: map[string]*fakeTable{}, watchers: map[chan struct{}]bool{}, Limit: Limits{Bytes: 2 * wantBuffer, Replies: 2 * wantBuffer, Messages: maxMessages}}
}

// History returns what the Fake was told since the last call of Forget.
func (f *Fake) History() []Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.history)
}

// Forget empties the history.
func (f *Fake) Forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.history = nil
}

// Tables implements Kernel.
func (f *Fake) Tables(ctx context.Context) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for name := range f.tables {
		if ours(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, ctx.Err()
}

// BaseChains implements Kernel.
func (f *Fake) BaseChains(ctx context.Context, table string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	if t := f.tables[table]; t != nil {
		for name, c := range t.chains {
			if c.base() {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names, ctx.Err()
}

// Read implements Kernel.
func (f *Fake) Read(ctx context.Context, table string, chains ...string) (*Table, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ft := f.tables[table]
	if ft == nil {
		return nil, true, fmt.Errorf("table %s: %w", table, ErrNotExist)
	}
	t := ft.snapshot(table)
	for _, s := range t.Sets {
		if s.Expires {
			s.Elements = nil
		}
	}
	if len(chains) > 0 {
		t.Sets, t.Maps = nil, nil
		t.Chains = slices.DeleteFunc(t.Chains, func(c *Chain) bool { return !slices.Contains(chains, c.Name) })
	}
	return t, true, ctx.Err()
}

// Elements implements Kernel. A Fake has no clock: elements stay, and so do
// their timeouts, until Pass.
func (f *Fake) Elements(ctx context.Context, table string, set *Set) ([]Element, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t := f.tables[table]; t != nil {
		if s := t.sets[set.Name]; s != nil && s.header() == set.header() {
			return slices.SortedFunc(maps.Values(s.elements), func(a, b Element) int { return cmp.Compare(a.Key, b.Key) }), ctx.Err()
		}
	}
	return nil, ctx.Err()
}

// Snapshot returns all tables as they are now, those that are not ours included.
func (f *Fake) Snapshot() map[string]*Table {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string]*Table{}
	for name, t := range f.tables {
		out[name] = t.snapshot(name)
	}
	return out
}

// Limits implements Kernel.
func (f *Fake) Limits() Limits { return f.Limit }

// Grace implements Kernel.
func (f *Fake) Grace(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.history = append(f.history, Event{Grace: true})
	return ctx.Err()
}

// Close implements Kernel.
func (f *Fake) Close() error { return nil }

// Send implements Kernel.
func (f *Fake) Send(ctx context.Context, b Batch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(b.Ops) == 0 {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.send(b)
	f.history = append(f.history, Event{Batch: b, Err: err})
	return err
}

func (f *Fake) send(b Batch) error {
	if c := b.cost(); c.Bytes > f.Limit.Bytes || c.Replies > f.Limit.Replies {
		return fmt.Errorf("%w: %d operations", ErrTooBig, len(b.Ops))
	}
	var after error
	if f.OnSend != nil {
		if after = f.OnSend(b); after != nil && !errors.Is(after, ErrUncertain) {
			return after
		}
	}
	if err := f.apply(b); err != nil {
		return err
	}
	return after
}

// apply changes the tables, or nothing.
func (f *Fake) apply(b Batch) error {
	tx := &fakeTx{tables: maps.Clone(f.tables), table: b.Table, own: map[any]bool{}}
	for i, op := range b.Ops {
		if err := tx.apply(op); err != nil {
			return fmt.Errorf("%w: operation %d of %d on table %s (%s): %w: %w", ErrUncertain, i+1, len(b.Ops), b.Table, describe(op), ErrRefused, err)
		}
	}
	f.tables = tx.tables
	return nil
}

// Disturb applies a batch as another program would: it is not in the history,
// OnSend is not asked, and those who Watch are told if the table is one of ours.
// A batch without operations stands for notifications that were lost.
func (f *Fake) Disturb(b Batch) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.apply(b); err != nil {
		return err
	}
	if len(b.Ops) == 0 || ours(b.Table) {
		for w := range f.watchers {
			select {
			case w <- struct{}{}:
			default: // it will be called anyway
			}
		}
	}
	return nil
}

// Watch implements Kernel.
func (f *Fake) Watch(ctx context.Context, ready, changed func()) error {
	w := make(chan struct{}, 1)
	f.mu.Lock()
	f.watchers[w] = true
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.watchers, w)
	}()
	if ready != nil {
		ready()
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w:
			changed()
		}
	}
}

// Pass lets a time pass: elements whose timeout is over go.
func (f *Fake) Pass(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.tables {
		for _, s := range t.sets {
			for key, e := range s.elements {
				if e.Timeout == 0 {
					continue
				}
				if e.Timeout -= d; e.Timeout > 0 {
					s.elements[key] = e
				} else {
					delete(s.elements, key)
				}
			}
		}
	}
}

// describe names an operation and its object.
func describe(op Op) string {
	switch op := op.(type) {
	case AddSet:
		return "add set " + op.Set.Name
	case DelSet:
		return "delete set " + op.Name
	case AddElements:
		return fmt.Sprintf("add %d elements to %s", len(op.Elements), op.Set.Name)
	case DelElements:
		return fmt.Sprintf("delete %d elements of %s", len(op.Elements), op.Set.Name)
	case AddChain:
		return "add chain " + op.Chain.Name
	case FlushChain:
		return "flush chain " + op.Name
	case DelChain:
		return "delete chain " + op.Name
	case AddRule:
		return "add rule to " + op.Chain + ": " + op.Rule.String()
	}
	return fmt.Sprintf("%T", op)
}
