package agent

import (
	"context"
	"log/slog"

	"k8s.io/utils/clock"
)

// Source delivers the objects of a cluster and their changes: Kubernetes or
// Manifests.
type Source interface {
	// run delivers to s until ctx ends and returns nil then. Any error ends the
	// agent.
	run(ctx context.Context, s sink) error
}

// sink is what a source delivers to. All of it is safe for concurrent use.
type sink struct {
	node   string // the own node's name
	queue  *queue
	health *health
	log    *slog.Logger
	clock  clock.Clock
}
