package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/policy"
)

// Run enforces until ctx ends, and returns nil then. It returns an error if the
// configuration is wrong, the health address cannot be had, or the source cannot
// start; failures to write to the kernel are not among them, they are tried again.
// However it ends, the rules stay in force.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("agent configuration: %w", err)
	}
	cfg = cfg.withDefaults()
	h := newHealth(cfg.Clock)
	var listener net.Listener
	if cfg.HealthAddr != "" {
		var err error
		if listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.HealthAddr); err != nil {
			return fmt.Errorf("health endpoint: %w", err)
		}
		cfg.Logger.Info("health endpoint", "address", listener.Addr().String())
	}
	q := newQueue()
	l := &loop{
		queue:    q,
		index:    policy.NewIndex(cfg.Node),
		enforcer: nft.NewEnforcer(cfg.rules(), cfg.Kernel),
		health:   h,
		log:      cfg.Logger,
		clock:    cfg.Clock,
	}
	group, ctx := errgroup.WithContext(ctx)
	if source, ok := cfg.Source.(eventful); ok {
		recorder, shutdown := startRecorder(ctx, cfg.Node, source.events())
		defer shutdown()
		l.warnings = newWarnings(recorder, cfg.Node)
	}
	group.Go(func() error { return l.run(ctx) })
	group.Go(func() error {
		return cfg.Source.run(ctx, sink{node: cfg.Node, queue: q, health: h, log: cfg.Logger, clock: cfg.Clock})
	})
	if listener != nil {
		group.Go(func() error { return serve(ctx, listener, h.handler()) })
	}
	return group.Wait()
}

// serve answers on l until ctx ends.
func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second, MaxHeaderBytes: 1 << 14}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("health endpoint: %w", err)
	}
	return nil
}
