package agent

import (
	"bytes"
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/portcullis-netpol/portcullis/policy"
	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// patience is when a test gives up on something that never happens.
const patience = 30 * time.Second

// call is one call of a recorder.
type call struct {
	what   string
	state  ir.State
	change ir.Change
	reply  chan error
}

// recorder is an enforcer whose every call waits for the test's answer.
type recorder struct {
	calls chan call

	// These are the loop's: look at them only between a call and its answer.
	blocks    []netip.Prefix
	midstream bool
	bridged   bool
	takeovers int
	untidy    bool
	forbids   bool
	rest      time.Duration
}

func newRecorder() *recorder { return &recorder{calls: make(chan call)} }

func (r *recorder) call(ctx context.Context, c call) error {
	c.reply = make(chan error, 1)
	select {
	case r.calls <- c:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-c.reply:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *recorder) Takeover(ctx context.Context, s ir.State) error {
	return r.call(ctx, call{what: "takeover", state: s})
}

func (r *recorder) Apply(ctx context.Context, c ir.Change) error {
	return r.call(ctx, call{what: "apply", change: c})
}

func (r *recorder) Repair(ctx context.Context, s ir.State) error {
	return r.call(ctx, call{what: "repair", state: s})
}

func (r *recorder) Tidy(ctx context.Context) error {
	r.untidy = false
	return r.call(ctx, call{what: "tidy"})
}

func (r *recorder) Lapse(ctx context.Context) (time.Duration, error) {
	err := r.call(ctx, call{what: "lapse"})
	r.forbids = err != nil || r.rest > 0
	return r.rest, err
}

func (r *recorder) SetPodCIDRs(blocks []netip.Prefix) { r.blocks = blocks }
func (r *recorder) SetMidstream(on bool)              { r.midstream = on }
func (r *recorder) SetBridged(on bool)                { r.bridged = on }
func (r *recorder) Untidy() bool                      { return r.untidy }
func (r *recorder) Forbidding() bool                  { return r.forbids }
func (r *recorder) Takeovers() int                    { return r.takeovers }

// next returns the next call, which must be the one named.
func (r *recorder) next(t *testing.T, what string) call {
	t.Helper()
	select {
	case c := <-r.calls:
		if c.what != what {
			t.Fatalf("got %s, want %s", c.what, what)
		}
		return c
	case <-time.After(patience):
		t.Fatalf("no %s came", what)
	}
	return call{}
}

// answer lets the next call, which must be the one named, return err.
func (r *recorder) answer(t *testing.T, what string, err error) call {
	t.Helper()
	c := r.next(t, what)
	c.reply <- err
	return c
}

// none fails if a call is under way.
func (r *recorder) none(t *testing.T) {
	t.Helper()
	select {
	case c := <-r.calls:
		t.Fatalf("unexpected %s", c.what)
	default:
	}
}

// fakeIndex is an index whose compiled form is a list of the names it holds: each
// is a group without steps.
type fakeIndex struct {
	now, flushed map[key]bool
	problems     map[string][]policy.Problem // by policy name
	panics       string                      // name of the pod that panics
	absorbed     chan key                    // if not nil, gets every key
	foreign      map[netip.Prefix]string     // pods elsewhere, by the block that is asked for

	// What it is asked about, and says.
	pods       map[netip.Addr]*corev1.Pod
	namespaces map[string]*corev1.Namespace
	verdict    func(src, dst netip.Addr, p ir.Protocol, port uint16) policy.Verdict
	looked     int // how often it was asked for a pod by name
}

func newFakeIndex() *fakeIndex {
	return &fakeIndex{now: map[key]bool{}, flushed: map[key]bool{}, problems: map[string][]policy.Problem{}}
}

func (x *fakeIndex) set(k key, there bool) {
	if x.absorbed != nil {
		x.absorbed <- k
	}
	if x.now[k] = there; !there {
		delete(x.now, k)
	}
}

func (x *fakeIndex) SetPod(p *corev1.Pod) {
	if p.Name == x.panics {
		panic("poison")
	}
	x.set(key{podKind, p.Namespace, p.Name}, true)
}
func (x *fakeIndex) DeletePod(namespace, name string) { x.set(key{podKind, namespace, name}, false) }
func (x *fakeIndex) SetNamespace(n *corev1.Namespace) { x.set(key{namespaceKind, "", n.Name}, true) }
func (x *fakeIndex) DeleteNamespace(name string)      { x.set(key{namespaceKind, "", name}, false) }
func (x *fakeIndex) SetNetworkPolicy(p *networkingv1.NetworkPolicy) []policy.Problem {
	x.set(key{policyKind, p.Namespace, p.Name}, true)
	return x.problems[p.Name]
}
func (x *fakeIndex) DeleteNetworkPolicy(namespace, name string) {
	x.set(key{policyKind, namespace, name}, false)
}

func (x *fakeIndex) Flush() ir.Change {
	was := stateOf(x.flushed)
	x.flushed = map[key]bool{}
	for k := range x.now {
		x.flushed[k] = true
	}
	var c ir.Change
	for _, g := range stateOf(x.flushed).Groups {
		if _, ok := was.Group(g.ID); !ok {
			c.AddGroups = append(c.AddGroups, g)
		}
	}
	for _, g := range was.Groups {
		if _, ok := stateOf(x.flushed).Group(g.ID); !ok {
			c.RemoveGroups = append(c.RemoveGroups, g.ID)
		}
	}
	return c
}

func (x *fakeIndex) State() ir.State { return stateOf(x.flushed) }

func (x *fakeIndex) Elsewhere(block netip.Prefix) (string, bool) {
	pod, found := x.foreign[block]
	return pod, found
}

func (x *fakeIndex) Verdict(src, dst netip.Addr, p ir.Protocol, port uint16) policy.Verdict {
	return x.verdict(src, dst, p, port)
}

func (x *fakeIndex) Pod(a netip.Addr) (*corev1.Pod, bool) {
	p, ok := x.pods[a]
	return p, ok
}

func (x *fakeIndex) Namespaces() []string { return slices.Sorted(maps.Keys(x.namespaces)) }

func (x *fakeIndex) Namespace(name string) (*corev1.Namespace, bool) {
	n, ok := x.namespaces[name]
	return n, ok
}

func (x *fakeIndex) PodNames(namespace string) (names []string) {
	for _, p := range x.pods {
		if p.Namespace == namespace {
			names = append(names, p.Name)
		}
	}
	return names
}

func (x *fakeIndex) PodNamed(namespace, name string) (*corev1.Pod, bool) {
	x.looked++
	for _, p := range x.pods {
		if p.Namespace == namespace && p.Name == name {
			return p.DeepCopy(), true
		}
	}
	return nil, false
}

func (x *fakeIndex) Selected(string) int     { return len(x.pods) }
func (x *fakeIndex) Mode(string) policy.Mode { return 0 }

func stateOf(keys map[key]bool) ir.State {
	c := ir.Change{}
	for k := range keys {
		c.AddGroups = append(c.AddGroups, ir.Group{ID: ir.GroupID(k.String())})
	}
	s, err := ir.State{}.Apply(c)
	if err != nil {
		panic(err)
	}
	return s
}

// names returns the IDs of a state's groups.
func names(s ir.State) []string {
	var ids []string
	for _, g := range s.Groups {
		ids = append(ids, string(g.ID))
	}
	return ids
}

// logbook is where a logger writes for a test to read.
type logbook struct {
	mu    sync.Mutex
	text  bytes.Buffer
	lines chan string
}

func newLogbook() (*logbook, *slog.Logger) {
	b := &logbook{lines: make(chan string, 10000)}
	return b, slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (b *logbook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines <- string(p)
	return b.text.Write(p)
}

func (b *logbook) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func (b *logbook) count(s string) int { return strings.Count(b.String(), s) }

// wait returns the next line that holds every one of the texts.
func (b *logbook) wait(t *testing.T, texts ...string) string {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case line := <-b.lines:
			found := true
			for _, s := range texts {
				found = found && strings.Contains(line, s)
			}
			if found {
				return line
			}
		case <-deadline:
			t.Fatalf("the log never says %q:\n%s", texts, b)
		}
	}
}

// eventually waits for a condition that nothing announces.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}
