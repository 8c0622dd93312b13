package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"net"

	"k8s.io/utils/clock"

	"github.com/portcullis-netpol/portcullis/nft"
)

// Config is what an agent needs to know. Node, Source and Kernel are required.
type Config struct {
	// Node is the name of the Node object of this machine: the pods whose
	// spec.nodeName it is are the ones to guard.
	Node string
	// Source delivers the cluster's objects: Kubernetes or Manifests.
	Source Source
	// Deny says how a packet that no policy allows is refused.
	Deny nft.DenyMode
	// PodToNode judges packets from a pod to its own node as egress.
	PodToNode bool
	// HealthAddr is the host:port that serves /healthz and /readyz. Empty means
	// no listener.
	HealthAddr string
	// Logger gets everything that the agent has to say; nil means slog.Default().
	Logger *slog.Logger
	// Kernel is where the rules go. The caller opens it.
	Kernel nft.Kernel
	// Clock times retries and the quiet period after file events; nil means the
	// machine's.
	Clock clock.Clock
}

// Validate reports everything that is wrong with c, joined.
func (c Config) Validate() error {
	var errs []error
	if c.Node == "" {
		errs = append(errs, errors.New("the node's name is empty"))
	}
	if c.Source == nil {
		errs = append(errs, errors.New("there is no source of objects"))
	}
	if c.Kernel == nil {
		errs = append(errs, errors.New("there is no kernel to write to"))
	}
	if err := c.rules().Validate(); err != nil {
		errs = append(errs, err)
	}
	if c.HealthAddr != "" {
		if _, _, err := net.SplitHostPort(c.HealthAddr); err != nil {
			errs = append(errs, fmt.Errorf("health address %q: %w", c.HealthAddr, err))
		}
	}
	return errors.Join(errs...)
}

// rules returns the part of c that the rules depend on.
func (c Config) rules() nft.Config {
	return nft.Config{Deny: c.Deny, PodToNode: c.PodToNode, Logger: c.Logger}
}

// withDefaults fills in what may be left out.
func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	return c
}
