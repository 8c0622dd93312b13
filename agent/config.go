package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"k8s.io/utils/clock"

	"github.com/portcullis-netpol/portcullis/agent/node"
	"github.com/portcullis-netpol/portcullis/agent/socket"
	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/nft/conntrack"
	"github.com/portcullis-netpol/portcullis/nft/nflog"
	"github.com/portcullis-netpol/portcullis/nft/spoof"
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
	// Quarantine holds back the addresses of PodCIDRs that no pod is known to have
	// yet, so that a new pod is isolated from its first packet on.
	Quarantine bool
	// PodCIDRs are the blocks that this node's pods get their addresses from; none
	// means those of the Node object, and of a family that it says nothing of, those
	// that the CNI plugin reports at Socket.
	PodCIDRs []netip.Prefix
	// Connections are those that the node tracks. The ones that a change forbids
	// are ended, unless KeepConnections is set or a policy's annotation says
	// otherwise. Nil leaves all of them alone.
	Connections     *conntrack.Conn
	KeepConnections bool
	// Senders keeps pods from sending with addresses that are not theirs. Nil lets
	// them.
	Senders *spoof.Guard
	// Checker looks for settings of the node that let packets past the rules. Nil
	// means that nobody looks.
	Checker *node.Checker
	// Socket is where the CNI plugin asks; empty means that it does not. What the
	// plugin reports of the node's blocks is kept in a file beside it.
	Socket string
	// AdminSocket is where people ask what the agent does, see package admin; empty
	// means that nobody can.
	AdminSocket string
	// LogGroup is the nflog group that denied packets are copied to, to be named, logged
	// and told of at AdminSocket; 0 is none. If the agent cannot have it, it says so and
	// does without; if somebody else has it, until they go.
	LogGroup uint16
	// NetNS is a file descriptor of the network namespace that Kernel works in; 0
	// is the process's.
	NetNS int
	// AuditEvery is how often the whole table is read and compared; 0 means every
	// five minutes, less than 0 never.
	AuditEvery time.Duration
	// HealthAddr is the host:port that serves /healthz and /readyz. Empty means
	// no listener.
	HealthAddr string
	// MetricsAddr is the host:port that serves /metrics. Empty means no listener.
	MetricsAddr string
	// Version is the agent's, as its metrics name it.
	Version string
	// Logger gets everything that the agent has to say; nil means slog.Default().
	Logger *slog.Logger
	// Kernel is where the rules go. The caller opens it.
	Kernel nft.Kernel
	// Clock times retries and the quiet period after file events; nil means the
	// machine's.
	Clock clock.Clock

	// openPackets opens LogGroup; nil means the kernel's.
	openPackets func(netns int, group uint16) (packetLog, error)
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
	for i, p := range c.PodCIDRs {
		if !p.IsValid() {
			errs = append(errs, fmt.Errorf("pod CIDR %d is not valid", i))
		}
	}
	if c.AdminSocket != "" {
		if err := socket.Check(c.AdminSocket); err != nil {
			errs = append(errs, fmt.Errorf("admin socket: %w", err))
		}
	}
	for _, a := range []struct{ what, addr string }{{"health", c.HealthAddr}, {"metrics", c.MetricsAddr}} {
		if _, _, err := net.SplitHostPort(a.addr); a.addr != "" && err != nil {
			errs = append(errs, fmt.Errorf("%s address %q: %w", a.what, a.addr, err))
		}
	}
	return errors.Join(errs...)
}

// rules returns the part of c that the rules depend on.
func (c Config) rules() nft.Config {
	return nft.Config{Deny: c.Deny, PodToNode: c.PodToNode, Midstream: true, LogGroup: c.LogGroup, Logger: c.Logger}
}

// withDefaults fills in what may be left out.
func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.AuditEvery == 0 {
		c.AuditEvery = 5 * time.Minute
	}
	c.PodCIDRs = canonical(c.PodCIDRs)
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.openPackets == nil {
		c.openPackets = func(netns int, group uint16) (packetLog, error) { return nflog.Open(netns, group) }
	}
	return c
}
