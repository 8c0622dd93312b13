package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/portcullis-netpol/portcullis/agent"
	"github.com/portcullis-netpol/portcullis/agent/lean"
	nodecheck "github.com/portcullis-netpol/portcullis/agent/node"
	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/nft/conntrack"
	"github.com/portcullis-netpol/portcullis/nft/spoof"
)

// agentJob is what a child of the sort "agent" begins with. Its descriptor 3 is the
// network namespace to work in.
type agentJob struct {
	// Socket is the name of the API server's.
	Socket   string `json:"socket"`
	Profiles string `json:"profiles,omitempty"`
	Name     string `json:"name"`
}

// agentRequest is what it is asked from then on. It is answered with an agentStatus.
type agentRequest struct {
	// Wait says to answer when the agent has a table in force.
	Wait bool `json:"wait,omitempty"`
	// Settle says to give back garbage first.
	Settle bool `json:"settle,omitempty"`
	// Profile begins a CPU profile; the next request ends it.
	Profile string `json:"profile,omitempty"`
}

type agentStatus struct {
	Memory memory `json:"memory"`
	// CPU is what the process has used since it began.
	CPU  time.Duration `json:"cpu"`
	Sent traffic       `json:"sent"`
	// Received is what came from the API server, in bytes of HTTP.
	Received int64 `json:"received"`
	// Commits are those of addresses that events are about, since the last request.
	Commits []commit `json:"commits,omitempty"`
	// Read is when something came from the API server last until the table was in
	// force, Began when the first batch behind it was sent, InForce when it was in force.
	Read    time.Time `json:"read"`
	Began   time.Time `json:"began"`
	InForce time.Time `json:"in_force"`
	// ReadCPU and InForceCPU are what CPU was then.
	ReadCPU    time.Duration `json:"read_cpu"`
	InForceCPU time.Duration `json:"in_force_cpu"`
	// Warnings are what the agent has logged at that level or above.
	Warnings []string `json:"warnings,omitempty"`
}

// commit is an address that came into a set of peers, or left it.
type commit struct {
	Addr netip.Addr `json:"a"`
	Join bool       `json:"j"`
	At   time.Time  `json:"t"`
}

// netnsFD is where a child finds the network namespace that it was given.
const netnsFD = 3

// agentProcess is agent.Run in a process of its own.
type agentProcess struct {
	counter *counter
	inForce chan struct{}

	mu      sync.Mutex
	status  agentStatus
	commits []commit
}

// reading is a connection to the API server.
type reading struct {
	net.Conn
	p *agentProcess
}

// Read notes when it has read something before there was a table in force.
func (r reading) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	r.p.status.Received += int64(n)
	if n > 0 && r.p.status.InForce.IsZero() {
		r.p.status.Read, r.p.status.ReadCPU = time.Now(), processorTime()
	}
	return n, err
}

// runAgent is the body of a child of the sort "agent". It runs until in ends.
func runAgent(ctx context.Context, in *json.Decoder, out *json.Encoder) error {
	var job agentJob
	if err := in.Decode(&job); err != nil {
		return err
	}
	p := &agentProcess{inForce: make(chan struct{})}
	log := slog.New(p)
	k, err := nft.OpenKernel(nft.Config{NetNS: netnsFD, Logger: log})
	if err != nil {
		return err
	}
	defer k.Close()
	flows, err := conntrack.Open(netnsFD)
	if err != nil {
		return err
	}
	defer flows.Close()
	guard, err := spoof.Open(netnsFD)
	if err != nil {
		return err
	}
	defer guard.Close()
	p.counter = &counter{Kernel: k, sent: p.sent}
	client, err := p.client(job.Socket)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	profiles := &profiler{dir: job.Profiles, name: job.Name}
	stop, err := profiles.start("start")
	if err != nil {
		return err
	}
	go func() {
		ended <- agent.Run(ctx, agent.Config{
			Node: node, Source: agent.Kubernetes(client), Kernel: p.counter, NetNS: netnsFD, Logger: log,
			PodToNode: true, Quarantine: true, Connections: flows, Senders: guard,
			Checker: nodecheck.NewChecker(nodecheck.Config{NetNS: netnsFD}),
		})
		cancel()
	}()
	err = p.serve(ctx, in, out, profiles, stop)
	cancel()
	return errors.Join(err, <-ended)
}

// client returns a client as the agent's own program makes it.
func (p *agentProcess) client(socket string) (kubernetes.Interface, error) {
	return lean.NewClient(&rest.Config{
		Host: "http://bench",
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
			return reading{conn, p}, err
		},
		ContentConfig: rest.ContentConfig{AcceptContentTypes: protobufType + ",application/json", ContentType: protobufType},
	})
}

// serve answers requests until there are no more. stop ends the profile under way.
func (p *agentProcess) serve(ctx context.Context, in *json.Decoder, out *json.Encoder, profiles *profiler, stop func() error) error {
	for first := true; ; first = false {
		var r agentRequest
		if err := in.Decode(&r); err != nil {
			_ = stop()
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if r.Wait {
			select {
			case <-p.inForce:
			case <-ctx.Done():
				return errors.New("the agent ended before it had a table in force")
			}
		}
		err := stop()
		if first {
			err = errors.Join(err, profiles.heap("steady"))
		}
		s, errStatus := p.now(r.Settle)
		if err := errors.Join(err, errStatus); err != nil {
			return err
		}
		stop = func() error { return nil }
		if r.Profile != "" {
			if stop, err = profiles.start(r.Profile); err != nil {
				return err
			}
		}
		if err := out.Encode(s); err != nil {
			return err
		}
	}
}

func (p *agentProcess) now(settle bool) (agentStatus, error) {
	var m memory
	var err error
	if settle {
		if m, err = settledMemory(); err != nil {
			return agentStatus{}, err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.status
	s.Memory, s.CPU, s.Sent = m, processorTime(), p.counter.now()
	s.Commits, p.commits = p.commits, nil
	return s, nil
}

// processorTime is what this process has used of processors since it began.
func processorTime() time.Duration {
	var usage unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &usage) != nil {
		return 0 // it takes nothing that could fail
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// sent notes when batches are committed.
func (p *agentProcess) sent(b nft.Batch) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.status.Began.IsZero() || p.status.Began.Before(p.status.Read) {
		p.status.Began = now // an earlier one was that of the table without pods
	}
	note := func(s *nft.Set, elements []nft.Element, join bool) {
		for _, e := range elements {
			if a, ok := netip.AddrFromSlice([]byte(e.Key)); ok && !s.Map && !s.Interval && isEvent(a) {
				p.commits = append(p.commits, commit{a, join, now})
			}
		}
	}
	for _, op := range b.Ops {
		switch op := op.(type) {
		case nft.AddElements:
			note(op.Set, op.Elements, true)
		case nft.DelElements:
			note(op.Set, op.Elements, false)
		}
	}
}

// Enabled, Handle, WithAttrs and WithGroup make p a slog.Handler that looks for what
// matters here.
func (p *agentProcess) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

// Handle notes when a table is in force, and what went wrong.
func (p *agentProcess) Handle(_ context.Context, r slog.Record) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.Message == "table in force" && p.status.InForce.IsZero() {
		p.status.InForce, p.status.InForceCPU = r.Time, processorTime()
		close(p.inForce)
	}
	if r.Level >= slog.LevelWarn && len(p.status.Warnings) < 10 {
		var text strings.Builder
		text.WriteString(r.Message)
		r.Attrs(func(a slog.Attr) bool { fmt.Fprintf(&text, " %s", a); return true })
		p.status.Warnings = append(p.status.Warnings, text.String())
	}
	return nil
}

// WithAttrs returns p.
func (p *agentProcess) WithAttrs([]slog.Attr) slog.Handler { return p }

// WithGroup returns p.
func (p *agentProcess) WithGroup(string) slog.Handler { return p }
