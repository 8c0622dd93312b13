package nft

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
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
	// of being forwarded. What Enforcer.Forbid forbids then also holds for
	// packets of the node's own processes (hook output).
	PodToNode bool
	// PodCIDRs are the blocks that the addresses of this node's pods are from.
	// An address in one of them that is no endpoint of the State is in
	// quarantine: it neither sends nor receives what the node forwards, and
	// with PodToNode it sends nothing to the node. Blocks may overlap, and
	// bits behind the prefix do not count. Without blocks there is no quarantine.
	PodCIDRs []netip.Prefix
	// Midstream resets TCP packets from and to isolated pods that belong to no
	// known connection and open none. Without it a connection that was deleted
	// from connection tracking comes back the other way round as soon as its
	// server sends. Where connection tracking did not work until now, all
	// connections look like that.
	Midstream bool
	// Bridged says that pods are attached to a bridge. With Midstream, what
	// Enforcer.Forbid has forbidden of TCP is then reset before DNAT, unless it opens
	// a connection: a bridge would send a later reset as it is, from an address that
	// a client of a Service does not know. Every packet that arrives pays for it while
	// anything is forbidden.
	Bridged bool
	// LogGroup is the nflog group that packets which are denied, or would be, are
	// copied to, a bounded number of them; 0 is none. Nobody has to listen. A kernel
	// without nft_log, nft_limit or nfnetlink_log logs nothing, which Logger is told.
	LogGroup uint16
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
	var errs error
	for _, p := range c.PodCIDRs {
		if !p.IsValid() || p.Addr().Is4In6() {
			errs = errors.Join(errs, fmt.Errorf("pod CIDR %s is no block of addresses", p))
		} else if p.Bits() == 0 {
			errs = errors.Join(errs, fmt.Errorf("pod CIDR %s is the whole family", p))
		}
	}
	return errs
}

func (c Config) logger() *slog.Logger {
	if c.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Logger
}
