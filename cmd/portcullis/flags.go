package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"

	"github.com/spf13/pflag"

	"github.com/portcullis-netpol/portcullis/nft"
)

// choice is a flag that takes one of a few words. The words stand in order; the
// value is that of the word, and the first is the default.
type choice[T any] struct {
	words  []string
	values []T
	chosen int
}

func (c *choice[T]) String() string {
	if c == nil || len(c.words) == 0 {
		return ""
	}
	return c.words[c.chosen]
}

// all returns the words, for shells to complete.
func (c *choice[T]) all() []string { return c.words }

func (c *choice[T]) Type() string { return strings.Join(c.words, "|") }

func (c *choice[T]) Set(word string) error {
	for i, w := range c.words {
		if w == word {
			c.chosen = i
			return nil
		}
	}
	return fmt.Errorf("must be one of %s", strings.Join(c.words, ", "))
}

func (c *choice[T]) value() T { return c.values[c.chosen] }

// rulesFlags are the flags that decide how the rules look.
type rulesFlags struct {
	deny       choice[nft.DenyMode]
	podToNode  choice[bool]
	quarantine choice[bool]
	podCIDRs   []string
	denied     choice[bool]
	logGroup   uint16
}

func (f *rulesFlags) add(to *pflag.FlagSet) {
	f.deny = choice[nft.DenyMode]{words: []string{"drop", "reject"}, values: []nft.DenyMode{nft.DenyDrop, nft.DenyReject}}
	f.podToNode = choice[bool]{words: []string{"enforce", "allow"}, values: []bool{true, false}}
	f.quarantine = choice[bool]{words: []string{"on", "off"}, values: []bool{true, false}}
	to.Var(&f.deny, "deny", "what becomes of packets that no policy allows: drop is silent, reject answers (TCP reset, ICMP administratively prohibited)")
	to.Var(&f.podToNode, "pod-to-node", "whether packets from a pod to its own node are judged as egress")
	to.Var(&f.quarantine, "quarantine", "whether addresses of the node's pod CIDRs reach nothing but their node until the agent knows the pod and its policies are in force")
	f.denied = choice[bool]{words: []string{"log", "off"}, values: []bool{true, false}}
	to.Var(&f.denied, "denied-packets", "whether the kernel copies denied packets, a bounded number of them, to an nflog group")
	to.Uint16Var(&f.logGroup, "nflog-group", logGroup, "the nflog `group` for denied packets, from 1 to 65535")
	to.StringSliceVar(&f.podCIDRs, "pod-cidrs", nil, "`blocks` that this node's pods get their addresses from (default: spec.podCIDRs of the Node, or what portcullis-cni reports to the agent)")
}

// logGroup is where denied packets are copied to unless a flag says otherwise. Groups
// are free to choose; low numbers are what others take.
const logGroup = 4040

// config returns the rules that are asked for. PodCIDRs are those of the flag alone,
// whether there is a quarantine or not. Midstream is what an agent sets unless its
// node does not track connections yet, and then a little later.
func (f *rulesFlags) config() (nft.Config, error) {
	c := nft.Config{Deny: f.deny.value(), PodToNode: f.podToNode.value(), Midstream: true}
	if f.logGroup == 0 {
		return nft.Config{}, errors.New("--nflog-group 0: must be from 1 to 65535")
	}
	if f.denied.value() {
		c.LogGroup = f.logGroup
	}
	for _, text := range f.podCIDRs {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nft.Config{}, fmt.Errorf("--pod-cidrs: %w", err)
		}
		c.PodCIDRs = append(c.PodCIDRs, p)
	}
	if err := c.Validate(); err != nil { // the words of the other flags cannot be wrong
		return nft.Config{}, fmt.Errorf("--pod-cidrs: %w", err)
	}
	return c, nil
}

// logFlags are the flags of the log.
type logFlags struct {
	level  choice[slog.Level]
	format choice[bool]
}

func (f *logFlags) add(to *pflag.FlagSet) {
	f.level = choice[slog.Level]{
		words:  []string{"info", "debug", "warn", "error"},
		values: []slog.Level{slog.LevelInfo, slog.LevelDebug, slog.LevelWarn, slog.LevelError},
	}
	f.format = choice[bool]{words: []string{"text", "json"}, values: []bool{false, true}}
	to.Var(&f.level, "log-level", "what to log at least")
	to.Var(&f.format, "log-format", "how to log")
}

func (f *logFlags) logger(to io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: f.level.value()}
	if f.format.value() {
		return slog.New(slog.NewJSONHandler(to, options))
	}
	return slog.New(slog.NewTextHandler(to, options))
}
