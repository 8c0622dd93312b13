package nft

import (
	"fmt"
	"log/slog"
)

// DenyMode is what becomes of packets that no policy allows.
type DenyMode uint8

const (
	// DenyDrop drops them without a word.
	DenyDrop DenyMode = iota
	// DenyReject answers TCP with a reset and everything else with ICMP
	// "administratively prohibited".
	DenyReject
)

// String returns the mode as ParseDenyMode reads it.
func (m DenyMode) String() string {
	switch m {
	case DenyDrop:
		return "drop"
	case DenyReject:
		return "reject"
	}
	return fmt.Sprintf("DenyMode(%d)", uint8(m))
}

// ParseDenyMode reads "drop" or "reject".
func ParseDenyMode(s string) (DenyMode, error) {
	switch s {
	case "drop":
		return DenyDrop, nil
	case "reject":
		return DenyReject, nil
	}
	return DenyDrop, fmt.Errorf("deny mode %q is neither drop nor reject", s)
}

// Config says how a State is enforced.
type Config struct {
	// Deny is what becomes of packets that no policy allows.
	Deny DenyMode
	// PodToNode enforces egress policies on packets from a pod to its own
	// node as well, where they are delivered to the node (hook input) instead
	// of being forwarded.
	PodToNode bool
	// NetNS is a file descriptor of the network namespace to work in; 0 means
	// the one of the process.
	NetNS int
	// Logger may be nil.
	Logger *slog.Logger
}

// Validate reports what in c makes no sense.
func (c Config) Validate() error {
	if c.Deny != DenyDrop && c.Deny != DenyReject {
		return fmt.Errorf("unknown deny mode %d", c.Deny)
	}
	if c.NetNS < 0 {
		return fmt.Errorf("network namespace: %d is no file descriptor", c.NetNS)
	}
	return nil
}

func (c Config) logger() *slog.Logger {
	if c.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Logger
}
