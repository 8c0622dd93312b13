package nft

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// Enforcer keeps one table of the kernel equal to a State. It remembers what
// hangs on policies, and reads the kernel only to verify. It is not safe for
// concurrent use.
type Enforcer struct {
	cfg    Config
	kernel Kernel
	// table is the one in force, "" before the first Takeover.
	table string
	// takeovers is how often a table was put in force.
	takeovers int
	// book describes table; nil if it is not known what the kernel holds.
	book *book
	// size counts what is in table; nil before the first Takeover.
	size *size
	// remains is what there still is of earlier states.
	remains remains
	// named are the groups of table whose objects have the names of others.
	named map[ir.GroupID]ir.Group
	// barrier is about what is forbidden in table.
	barrier barrier
	now     func() time.Time
}

// NewEnforcer returns an Enforcer that changes nothing until Takeover. The
// caller goes on owning k.
func NewEnforcer(cfg Config, k Kernel) *Enforcer {
	return &Enforcer{cfg: cfg, kernel: k, now: time.Now}
}

// Table returns the name of the table in force, "" before the first Takeover.
func (e *Enforcer) Table() string { return e.table }

// Takeovers returns how often e has put a table in force. A Repair that finds the
// kernel as it should be does not; one that finds it otherwise does, also if the table
// that takes the place of the old one has the same name.
func (e *Enforcer) Takeovers() int { return e.takeovers }

// SetPodCIDRs replaces Config.PodCIDRs. The next Repair finds that the table is
// not as it should be and takes over; until then nothing changes. Blocks that
// Config.Validate refuses make Repair and Takeover fail.
func (e *Enforcer) SetPodCIDRs(blocks []netip.Prefix) { e.cfg.PodCIDRs = slices.Clone(blocks) }

// SetMidstream replaces Config.Midstream, as SetPodCIDRs does.
func (e *Enforcer) SetMidstream(on bool) { e.cfg.Midstream = on }

// SetBridged replaces Config.Bridged, as SetPodCIDRs does.
func (e *Enforcer) SetBridged(on bool) { e.cfg.Bridged = on }

// Takeover builds a table for s beside what there is, verifies it, puts it in
// force and then deletes every other table of ours, whoever made it and however
// it is laid out. While two tables exist both must let a packet pass, so there
// is no moment at which something passes that neither of them allows, nor one at
// which something is dropped that both allow.
//
// After an error the old table is still in force; Takeover may be tried again.
func (e *Enforcer) Takeover(ctx context.Context, s ir.State) error {
	e.book, e.remains = nil, remains{}
	old, err := e.kernel.Tables(ctx)
	if err != nil {
		return fmt.Errorf("take over: %w", err)
	}
	if e.takeovers == 0 && e.cfg.LogGroup != 0 {
		e.tryLog(ctx)
	}
	name, err := freeName(old)
	if err != nil {
		return fmt.Errorf("take over: %w", err)
	}
	t, err := Build(e.cfg, name, s)
	if err != nil {
		return fmt.Errorf("take over: %w", err)
	}
	forbidden, longest := e.forbidden(ctx, old)
	behind := barrier{chains: CutChains(e.cfg), up: len(forbidden) > 0}
	behind.outlasts(e.now(), longest)
	if behind.up {
		t.Chains = append(t.Chains, behind.chains...)
	}
	if err := e.prepare(ctx, t); err != nil {
		// Nothing leads into the new table yet.
		return fmt.Errorf("take over: %w", errors.Join(err, e.discard(ctx, name)))
	}
	if err := e.send(ctx, name, []step{{units: forbidden}}); err != nil {
		e.cfg.logger().Warn("what old tables forbid is forgotten", "tables", old, "error", err)
	}
	if err := e.enter(ctx, t); err != nil {
		return fmt.Errorf("take over: put table %s in force: %w", name, err)
	}
	e.table, e.named, e.barrier = name, nil, behind
	e.takeovers++
	e.size = sizeOf(t)
	if len(old) > 0 {
		// A packet knows from the start of a hook which tables it will pass.
		if err := e.kernel.Grace(ctx); err != nil {
			return fmt.Errorf("take over: %w: %w", ErrUncertain, err)
		}
	}
	for _, o := range old {
		if err := retire(ctx, e.kernel, o); err != nil {
			return fmt.Errorf("take over: delete table %s: %w", o, err)
		}
	}
	b, err := bookOf(e.cfg, s, nil)
	if err != nil {
		return fmt.Errorf("take over: %w", err)
	}
	e.book, e.named = b, b.named
	e.cfg.logger().Info("table in force", "table", name, "replaces", old,
		"endpoints", len(s.Endpoints), "groups", len(s.Groups), "peerSets", len(s.PeerSets))
	return nil
}

// freeName returns the first name of a table that does not exist: a or b, unless
// an earlier takeover was interrupted and left both. Then neither can be spared
// before the new table is complete.
func freeName(taken []string) (string, error) {
	for c := 'a'; c <= 'z'; c++ {
		if name := tablePrefix + string(c); !slices.Contains(taken, name) {
			return name, nil
		}
	}
	return "", fmt.Errorf("all names are taken: %v", taken)
}

// prepare creates t but for its base chains, and verifies it.
func (e *Enforcer) prepare(ctx context.Context, t *Table) error {
	_, chains := t.split()
	steps := []step{
		{units: []unit{{AddTable{}}}},
		{units: create(t.Sets, t.Maps, chains)},
	}
	if err := e.send(ctx, t.Name, steps); err != nil {
		return err
	}
	want := &Table{Name: t.Name, Sets: t.Sets, Maps: t.Maps, Chains: chains}
	return refuse(compare(ctx, e.kernel, want))
}

// enter puts t in force and verifies that it is.
func (e *Enforcer) enter(ctx context.Context, t *Table) error {
	base, _ := t.split()
	if err := e.send(ctx, t.Name, []step{{units: []unit{createBase(base)}}}); err != nil {
		return err
	}
	var names []string
	for _, c := range base {
		names = append(names, c.Name)
	}
	return refuse(compare(ctx, e.kernel, &Table{Name: t.Name, Chains: base}, names...))
}

// discard deletes a table that was never in force, if it is there at all.
func (e *Enforcer) discard(ctx context.Context, name string) error {
	ctx = context.WithoutCancel(ctx)
	tables, err := e.kernel.Tables(ctx)
	if err != nil || !slices.Contains(tables, name) {
		return err
	}
	return e.kernel.Send(ctx, Batch{Table: name, Ops: []Op{DelTable{}}})
}

// send carries out steps. After an error it is not known what the kernel holds.
func (e *Enforcer) send(ctx context.Context, table string, steps []step) error {
	for _, s := range steps {
		if s.grace {
			if err := e.kernel.Grace(ctx); err != nil {
				return fmt.Errorf("%w: %w", ErrUncertain, err)
			}
		}
		for _, b := range batches(e.kernel.Limits(), table, s.units) {
			if err := e.kernel.Send(ctx, b); err != nil {
				if !errors.Is(err, ErrUncertain) {
					err = fmt.Errorf("%w: %w", ErrUncertain, err)
				}
				return err
			}
			if table == e.table && e.size != nil {
				e.size.apply(b)
			}
		}
	}
	return nil
}

// retire deletes a table of unknown layout. First it is unhooked, then nothing
// is touched until no packet is in it any more: a packet that finds its sets and
// maps half gone would be judged by neither table.
func retire(ctx context.Context, k Kernel, table string) error {
	base, err := k.BaseChains(ctx, table)
	if err != nil {
		return err
	}
	errUnhook := k.Send(ctx, Batch{Table: table, Ops: removeBase(base)})
	if err := k.Grace(ctx); err != nil {
		return err
	}
	err = k.Send(ctx, Batch{Table: table, Ops: []Op{DelTable{}}})
	if err == nil {
		return nil // then it does not matter how it was unhooked
	}
	if tables, errTables := k.Tables(ctx); errTables == nil && !slices.Contains(tables, table) {
		return nil // somebody else was faster
	}
	return errors.Join(err, errUnhook)
}

// Repair reads what the kernel holds. If that is s, all is well, as after a
// batch whose acknowledgement was lost; else it does what Takeover does.
func (e *Enforcer) Repair(ctx context.Context, s ir.State) error {
	e.book = nil
	if e.table != "" {
		_ = e.tidy(ctx) // else it is a difference
		d, err := e.Verify(ctx, s)
		if err != nil {
			return fmt.Errorf("repair: %w", err)
		}
		if len(d) == 0 {
			b, err := bookOf(e.cfg, s, e.named)
			if err != nil {
				return fmt.Errorf("repair: %w", err)
			}
			e.book, e.barrier.chains = b, CutChains(e.cfg)
			return nil
		}
		e.cfg.logger().Warn("the kernel's table is not as it should be", "table", e.table, "differences", len(d), "first", d[0].String())
	}
	return e.Takeover(ctx, s)
}

// Verify reads what the kernel holds and says how it differs from s: what is not
// as it should be in the table in force, and tables of ours that should not be
// there. It changes nothing. What Tidy would remove counts as a difference.
func (e *Enforcer) Verify(ctx context.Context, s ir.State) ([]Difference, error) {
	if e.table == "" {
		return nil, errors.New("verify: no table was put in force yet")
	}
	want, err := build(e.cfg, e.table, s, e.named)
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	if err := e.findBarrier(ctx); err != nil && !errors.Is(err, ErrUncertain) {
		return nil, fmt.Errorf("verify: %w", err)
	}
	if e.barrier.up {
		want.Chains = append(want.Chains, CutChains(e.cfg)...)
	}
	tables, err := e.kernel.Tables(ctx)
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	var out []Difference
	for _, t := range tables {
		if t != e.table {
			out = append(out, Difference{Object: "table " + t, Have: "all of it"})
		}
	}
	d, err := compare(ctx, e.kernel, want)
	if errors.Is(err, ErrNotExist) {
		return append(out, Difference{Object: "table " + e.table, Want: "all of it"}), nil
	}
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	if len(d) == 0 {
		e.size = sizeOf(want)
	}
	return append(out, d...), nil
}

// maxReads bounds how often a table is read that other programs' changes, or the
// kernel's own growing of a set, interrupt.
const maxReads = 5

// compare reads a table, or some of its chains, and compares it with want. A
// difference counts only if it is there a second time and nothing was missed; to
// be equal once is proof enough.
func compare(ctx context.Context, k Kernel, want *Table, chains ...string) ([]Difference, error) {
	for i := 1; ; i++ {
		have, complete, err := k.Read(ctx, want.Name, chains...)
		if err != nil {
			return nil, err
		}
		d := Diff(want, have)
		if len(d) == 0 || i == maxReads || complete && i > 1 {
			return d, nil
		}
	}
}

// refuse makes an error of differences.
func refuse(d []Difference, err error) error {
	if err != nil || len(d) == 0 {
		return err
	}
	return fmt.Errorf("%w: %d differences from what was sent, first: %s", ErrUncertain, len(d), d[0])
}

// Cleanup deletes all tables of ours.
func Cleanup(ctx context.Context, k Kernel) error {
	tables, err := k.Tables(ctx)
	if err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	var errs error
	for _, t := range tables {
		if err := retire(ctx, k, t); err != nil {
			errs = errors.Join(errs, fmt.Errorf("clean up: delete table %s: %w", t, err))
		}
	}
	return errs
}
