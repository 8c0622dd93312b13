package main

import (
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/portcullis-netpol/portcullis/agent"
	"github.com/portcullis-netpol/portcullis/agent/node"
	"github.com/portcullis-netpol/portcullis/nft/conntrack"
	"github.com/portcullis-netpol/portcullis/nft/spoof"
	"github.com/portcullis-netpol/portcullis/policy"
)

// guardFlags are the flags of what the agent does beside its rules, so that policies
// hold for connections that exist, and for packets that claim to be of another pod.
type guardFlags struct {
	connections choice[bool]
	spoofing    choice[bool]
	sysctls     bool
	socket      string
}

func (f *guardFlags) add(to *pflag.FlagSet) {
	f.connections = choice[bool]{words: []string{"cut", "keep"}, values: []bool{false, true}}
	f.spoofing = choice[bool]{words: []string{"on", "off"}, values: []bool{true, false}}
	to.Var(&f.connections, "existing-connections", "what becomes of connections that a change forbids; a policy's annotation "+policy.AnnotationExistingConnections+" takes precedence")
	to.Var(&f.spoofing, "anti-spoofing", "whether pods may send with their own addresses only")
	to.BoolVar(&f.sysctls, "manage-sysctls", false, "turn net.bridge.bridge-nf-call-iptables and -ip6tables on where bridged pods need them")
	to.StringVar(&f.socket, "cni-socket", "", "`path` of the socket for portcullis-cni (default: none)")
}

// apply opens what the flags ask for in a network namespace and puts it into cfg. The
// function that it returns closes it; no rule changes by that.
func (f *guardFlags) apply(cfg *agent.Config, netns int) (done func(), err error) {
	connections, err := conntrack.Open(netns)
	if err != nil {
		return nil, fmt.Errorf("open connection tracking: %w", err)
	}
	done = func() { _ = connections.Close() }
	if f.spoofing.value() {
		guard, err := spoof.Open(netns)
		if err != nil {
			done()
			return nil, fmt.Errorf("open nftables (netdev): %w", err)
		}
		cfg.Senders = guard
		done = func() { _ = errors.Join(connections.Close(), guard.Close()) }
	}
	cfg.Connections, cfg.KeepConnections = connections, f.connections.value()
	cfg.Checker = node.NewChecker(node.Config{NetNS: netns, Manage: f.sysctls})
	cfg.Socket, cfg.NetNS = f.socket, netns
	return done, nil
}
