package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/policy"
)

// engineJob is what a child of the sort "engine" is asked for.
type engineJob struct {
	Size Size `json:"size"`
	// Starts is how often the cold and the warm start are measured.
	Starts int `json:"starts"`
	// Events bounds how often each event is measured, and Budget the time that each
	// pair of events takes in sum, tidying up included, once there were a few.
	Events int           `json:"events"`
	Budget time.Duration `json:"budget"`
	// Profiles is a directory for profiles, or empty.
	Profiles string `json:"profiles,omitempty"`
}

// engineResult is its answer.
type engineResult struct {
	Cold []start `json:"cold"`
	Warm []start `json:"warm"`
	// Memory is that of the process with all objects in the index and one table.
	Memory memory `json:"memory"`
	// Kernel is by how much the kernel's memory grew with the table.
	Kernel int64 `json:"kernel"`
	// Idle is what was sent when all objects were given once more, and for a look
	// at the whole table.
	Idle   traffic  `json:"idle"`
	Events []timing `json:"events"`
}

// start is how long a start takes, by phase.
type start struct {
	Feed     time.Duration `json:"feed"`     // objects into the index
	Compile  time.Duration `json:"compile"`  // Flush and State
	Takeover time.Duration `json:"takeover"` // all of Enforcer.Takeover
	// CPU is the processor time that all three took, the collector's included.
	CPU  time.Duration `json:"cpu"`
	Sent traffic       `json:"sent"`
}

// Total is what the process takes from when it has all objects.
func (s start) Total() time.Duration { return s.Feed + s.Compile + s.Takeover }

// engine is an Index and an Enforcer in a network namespace of their own.
type engine struct {
	*cluster
	cfg      nft.Config
	counter  *counter
	index    *policy.Index
	enforcer *nft.Enforcer
	netns    *os.File
}

func newEngine(c *cluster) (*engine, error) {
	e := &engine{cluster: c}
	var err error
	if e.netns, err = newNetNS(); err != nil {
		return nil, err
	}
	e.cfg = nft.Config{NetNS: int(e.netns.Fd()), PodToNode: true, Midstream: true, PodCIDRs: localBlocks(), Logger: slog.New(slog.DiscardHandler)}
	k, err := nft.OpenKernel(e.cfg)
	if err != nil {
		return nil, errors.Join(err, e.netns.Close())
	}
	e.counter = &counter{Kernel: k}
	return e, nil
}

func (e *engine) close() error { return errors.Join(e.counter.Close(), e.netns.Close()) }

// newNetNS returns a network namespace that is gone when it is closed.
func newNetNS() (*os.File, error) {
	type result struct {
		f   *os.File
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		var r result
		if r.err = unix.Unshare(unix.CLONE_NEWNET); r.err != nil {
			r.err = fmt.Errorf("unshare network namespace: %w", r.err)
		} else {
			r.f, r.err = os.Open("/proc/thread-self/ns/net")
		}
		done <- r
	}()
	r := <-done
	return r.f, r.err
}

// runEngine is the body of a child of the sort "engine".
func runEngine(ctx context.Context, job engineJob) (r *engineResult, err error) {
	e, err := newEngine(newCluster(job.Size))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	r = &engineResult{}
	profiles := &profiler{dir: job.Profiles, name: "engine-" + job.Size.file()}
	if err := profiles.during("start", func() error { return e.starts(ctx, job.Starts, r) }); err != nil {
		return nil, err
	}
	if err := profiles.heap("steady"); err != nil {
		return nil, err
	}
	if r.Idle, err = e.idle(ctx); err != nil {
		return nil, err
	}
	err = profiles.during("events", func() error {
		events, err := timeEvents(ctx, []*engine{e}, job.Events, job.Budget)
		if err == nil {
			r.Events = events[0]
		}
		return err
	})
	return r, err
}

// starts measures cold and warm starts, and the memory after the first cold one.
func (e *engine) starts(ctx context.Context, n int, r *engineResult) error {
	for i := range n {
		if err := nft.Cleanup(ctx, e.counter); err != nil {
			return err
		}
		before, err := kernelMemory()
		if err != nil {
			return err
		}
		s, err := e.start(ctx)
		if err != nil {
			return fmt.Errorf("cold start: %w", err)
		}
		r.Cold = append(r.Cold, s)
		if i == 0 {
			if r.Memory, err = settledMemory(); err != nil {
				return err
			}
			after, err := kernelMemory()
			if err != nil {
				return err
			}
			r.Kernel = after - before
		}
		if s, err = e.start(ctx); err != nil {
			return fmt.Errorf("warm start: %w", err)
		}
		r.Warm = append(r.Warm, s)
	}
	return nil
}

// start does what a new process does, with the table that there is or none. Making
// the objects is not measured.
func (e *engine) start(ctx context.Context) (s start, err error) {
	e.index, e.enforcer = nil, nil // of an earlier start
	runtime.GC()
	e.index = policy.NewIndex(node)
	e.objects(func(chunk []any) {
		begin, used := time.Now(), processorTime()
		for _, o := range chunk {
			e.set(o)
		}
		s.Feed += time.Since(begin)
		s.CPU += processorTime() - used
	})
	begin, used := time.Now(), processorTime()
	e.index.Flush()
	state := e.index.State()
	s.Compile = time.Since(begin)
	before := e.counter.now()
	e.enforcer = nft.NewEnforcer(e.cfg, e.counter)
	begin = time.Now()
	err = e.enforcer.Takeover(ctx, state)
	s.Takeover = time.Since(begin)
	s.CPU += processorTime() - used
	s.Sent = e.counter.now().minus(before)
	return s, err
}

func (e *engine) set(o any) {
	switch o := o.(type) {
	case *corev1.Namespace:
		e.index.SetNamespace(o)
	case *corev1.Pod:
		e.index.SetPod(o)
	case *networkingv1.NetworkPolicy:
		e.index.SetNetworkPolicy(o)
	}
}

// idle gives the index all objects again and has the enforcer look at the table.
func (e *engine) idle(ctx context.Context) (traffic, error) {
	before := e.counter.now()
	e.objects(func(chunk []any) {
		for _, o := range chunk {
			e.set(o)
		}
	})
	change := e.index.Flush()
	if !change.Empty() {
		return traffic{}, errors.New("objects that are the same made a change")
	}
	if err := e.enforcer.Apply(ctx, change); err != nil {
		return traffic{}, err
	}
	if err := e.enforcer.Repair(ctx, e.index.State()); err != nil {
		return traffic{}, err
	}
	return e.counter.now().minus(before), nil
}
