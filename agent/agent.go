package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/portcullis-netpol/portcullis/agent/cni"
)

// Run enforces until ctx ends, and returns nil then. It returns an error if the
// configuration is wrong, a socket cannot be had, or the source cannot start; failures
// to write to the kernel are not among them, they are tried again. However it ends, the
// rules stay in force.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("agent configuration: %w", err)
	}
	cfg = cfg.withDefaults()
	h := newHealth(cfg.Clock)
	packets := cfg.openLog()
	l, err := newLoop(ctx, cfg, h)
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	serving, stop, err := observe(cfg, l, packets, ended)
	defer stop()
	if err != nil {
		return err
	}
	for _, e := range []endpoint{{"health endpoint", cfg.HealthAddr, h.handler()}, {"metrics endpoint", cfg.MetricsAddr, l.meters.handler()}} {
		if e.addr == "" {
			continue
		}
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", e.addr)
		if err != nil {
			return fmt.Errorf("%s: %w", e.what, err)
		}
		defer listener.Close()
		cfg.Logger.Info(e.what, "address", listener.Addr().String())
		serving = append(serving, func(ctx context.Context) error { return serve(ctx, e.what, listener, e.handler) })
	}
	if cfg.Socket != "" {
		server, err := cni.Listen(cfg.Socket)
		if err != nil {
			return fmt.Errorf("CNI plugin: %w", err)
		}
		defer server.Close()
		server.Logger = cfg.Logger
		serving = append(serving, func(ctx context.Context) error { return server.Serve(ctx, handler{l.ask, ended}) })
	}
	group, ctx := errgroup.WithContext(ctx)
	if source, ok := cfg.Source.(eventful); ok {
		recorder, shutdown := startRecorder(ctx, cfg.Node, source.events())
		defer shutdown()
		l.warnings = newWarnings(recorder, cfg.Node)
	}
	group.Go(func() error {
		defer close(ended)
		return l.run(ctx)
	})
	group.Go(func() error {
		return cfg.Source.run(ctx, sink{node: cfg.Node, queue: l.queue, health: h, log: cfg.Logger, clock: cfg.Clock})
	})
	group.Go(func() error { return follow(ctx, cfg, cfg.Kernel.Watch, l.queue, batch{disturbed: true}) })
	if cfg.Senders != nil {
		group.Go(func() error { return follow(ctx, cfg, cfg.Senders.Watch, l.queue, batch{interfaces: true}) })
	}
	for _, f := range serving {
		group.Go(func() error { return f(ctx) })
	}
	return group.Wait()
}

// endpoint is an address at which the agent answers.
type endpoint struct {
	what, addr string // host:port; empty: it does not
	handler    http.Handler
}

// follow puts news into the queue when somebody else touches the rules, or may have
// done so unseen. Without that the audit still finds out.
func follow(ctx context.Context, cfg Config, wait func(ctx context.Context, ready, changed func()) error, q *queue, news batch) error {
	for {
		look := func() { q.put(news) }
		err := wait(ctx, look, look)
		if ctx.Err() != nil {
			return nil
		}
		cfg.Logger.Error("the kernel's notifications ended; watching again", "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-cfg.Clock.After(watchAgain):
		}
	}
}

// watchAgain is the pause before the kernel's notifications are asked for again.
const watchAgain = time.Second

// serve answers on l until ctx ends.
func serve(ctx context.Context, what string, l net.Listener, h http.Handler) error {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second, MaxHeaderBytes: 1 << 14}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
