package nft

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// Packets that are denied, or would be, end in a chain that says why. There they are
// counted and some of them logged; a packet that is allowed meets none of it.
const (
	// logRate bounds what is logged for each reason and direction, in packets a second,
	// and, after a pause, at once: enough to see who is denied what, and nothing that
	// somebody could keep a node busy with.
	logRate = 100
	// logBytes is how much of a packet is logged: all of the headers that matter.
	logBytes = 128

	// tallyTimeout is how long the count of an address that nothing is denied stays.
	tallyTimeout     = 24 * time.Hour
	tallyTimeoutText = "1d"
	// maxTallies bounds the addresses that are counted. They are those of the node's
	// pods, of one day.
	maxTallies = 65535
)

// deniedSet has the packets that policies denied to a direction of a pod, by address.
func (f family) deniedSet(d ir.Direction) *Set {
	return &Set{Name: "denied" + short(d) + f.digit, Type: f.addr, Expires: true, Counts: true}
}

// endChains are where packets end that no policy allows, or that none was asked about.
// None of them returns.
func endChains(cfg Config) []*Chain {
	var out []*Chain
	add := func(name string, rules ...[]Rule) {
		c := &Chain{Name: name}
		for _, r := range rules {
			c.Rules = append(c.Rules, r...)
		}
		out = append(out, c)
	}
	for _, d := range directions {
		add(endChain(LogPolicy, d), self(), tally(d), cfg.log(LogPolicy, d), cfg.refuse())
		add(endChain(LogAudit, d), self(), count, cfg.log(LogAudit, d), []Rule{{Action: accept}})
		if len(cfg.PodCIDRs) > 0 {
			add(endChain(LogQuarantine, d), count, cfg.log(LogQuarantine, d), drop)
		}
	}
	add(endChain(LogCut, 0), self(), count, cfg.log(LogCut, 0), cfg.refuse())
	return out
}

var (
	count = []Rule{{Match: []Match{Counter{}}}}
	drop  = []Rule{{Action: Verdict{Kind: VerdictDrop}}}
)

// tally counts the packet for the pod that is judged.
func tally(d ir.Direction) []Rule {
	return each(func(f family) Rule { return Rule{Action: Tally{f.own(d), f.deniedSet(d).Name}} })
}

func (c Config) log(r LogReason, d ir.Direction) []Rule {
	if c.LogGroup == 0 {
		return nil
	}
	return []Rule{{Match: []Match{Limit{logRate, logRate}}, Action: Log{logPrefix(r, d), c.LogGroup, logBytes}}}
}

// logTrial makes a rule that logs, and leaves nothing behind.
func (c Config) logTrial() Batch {
	const chain = "log"
	b := Batch{Table: tablePrefix + chain, Ops: []Op{AddTable{}, AddChain{&Chain{Name: chain}}}}
	for _, r := range c.log(LogPolicy, ir.Egress) {
		b.Ops = append(b.Ops, AddRule{chain, r})
	}
	b.Ops = append(b.Ops, DelTable{})
	return b
}

// tryLog turns logging off where the kernel cannot do it, since the policies come first.
func (e *Enforcer) tryLog(ctx context.Context) {
	if err := e.kernel.Send(ctx, e.cfg.logTrial()); errors.Is(err, unix.ENOENT) {
		e.cfg.logger().Warn("this kernel cannot log packets by nftables (it takes nft_log, nft_limit and nfnetlink_log): denied packets are only counted", "error", err)
		e.cfg.LogGroup = 0
	}
}

// refuse drops the packet, with an answer or without.
func (c Config) refuse() []Rule {
	if c.Deny != DenyReject {
		return drop
	}
	return append([]Rule{
		{Match: []Match{protoTCP}, Action: RejectTCPReset},
		{Action: RejectProhibited},
	}, drop...)
}
