package control

import (
	"context"
	"sync"
	"time"

	"github.com/portcullis-netpol/portcullis/nft"
)

// traffic is what was sent to a kernel.
type traffic struct {
	Batches  int `json:"batches"`
	Messages int `json:"messages"`
	Bytes    int `json:"bytes"`
	// Graces is how often it was waited until no packet was on its way.
	Graces int `json:"graces"`
	// What the messages were about.
	Sets     int `json:"sets"`
	Chains   int `json:"chains"`
	Rules    int `json:"rules"`
	Elements int `json:"elements"`
	// Intervals is how many of the messages were about sets of ranges, which the
	// kernel takes longer to change than others.
	Intervals int `json:"intervals"`
	// Sending and Waiting are the times spent in Send and in Grace.
	Sending time.Duration `json:"sending"`
	Waiting time.Duration `json:"waiting"`
}

// minus returns what was sent since o.
func (t traffic) minus(o traffic) traffic {
	t.Batches -= o.Batches
	t.Messages -= o.Messages
	t.Bytes -= o.Bytes
	t.Graces -= o.Graces
	t.Sets -= o.Sets
	t.Chains -= o.Chains
	t.Rules -= o.Rules
	t.Elements -= o.Elements
	t.Intervals -= o.Intervals
	t.Sending -= o.Sending
	t.Waiting -= o.Waiting
	return t
}

// counter is a Kernel that counts what is sent to another.
type counter struct {
	nft.Kernel
	// sent, if not nil, is told of every batch that the kernel has committed.
	sent func(nft.Batch)

	mu    sync.Mutex
	total traffic
	// ranges are the names of the sets of ranges that were ever added.
	ranges map[string]bool
}

// now returns what was sent until now.
func (c *counter) now() traffic {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total
}

// Send counts a batch, also one that fails.
func (c *counter) Send(ctx context.Context, b nft.Batch) error {
	begin := time.Now()
	err := c.Kernel.Send(ctx, b)
	took := time.Since(begin)
	if len(b.Ops) == 0 {
		return err
	}
	if c.sent != nil && err == nil {
		c.sent(b)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total.Batches++
	c.total.Messages += len(b.Ops)
	c.total.Sending += took
	c.total.Bytes += 2 * messageHeader // the batch's begin and end
	for _, op := range b.Ops {
		c.total.Bytes += bytesOf(b.Table, op)
		c.count(op)
	}
	return err
}

// count enters what a message is about.
func (c *counter) count(op nft.Op) {
	ranges := false
	switch op := op.(type) {
	case nft.AddSet:
		c.total.Sets++
		if ranges = op.Set.Interval; ranges {
			if c.ranges == nil {
				c.ranges = map[string]bool{}
			}
			c.ranges[op.Set.Name] = true
		}
	case nft.DelSet:
		c.total.Sets++
		ranges = c.ranges[op.Name]
	case nft.AddChain, nft.DelChain:
		c.total.Chains++
	case nft.AddRule:
		c.total.Rules++
	case nft.AddElements:
		c.total.Elements += len(op.Elements)
		ranges = op.Set.Interval
	case nft.DelElements:
		c.total.Elements += len(op.Elements)
		ranges = op.Set.Interval
	}
	if ranges {
		c.total.Intervals++
	}
}

// Grace counts the wait.
func (c *counter) Grace(ctx context.Context) error {
	begin := time.Now()
	err := c.Kernel.Grace(ctx)
	took := time.Since(begin)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total.Graces++
	c.total.Waiting += took
	return err
}

const (
	messageHeader = 20 // netlink's and netfilter's
	attribute     = 4  // the header of an attribute
	setHeader     = 60 // flags, types, lengths and the description of a set
	expression    = 60 // of a rule, with its name and data
)

// str is the size of an attribute that is a string.
func str(s string) int { return attribute + (len(s)+4)&^3 }

// bytesOf reckons the size of a netlink message.
func bytesOf(table string, op nft.Op) int {
	n := messageHeader + str(table)
	switch op := op.(type) {
	case nft.AddSet:
		n += str(op.Set.Name) + setHeader
	case nft.DelSet:
		n += str(op.Name)
	case nft.AddElements:
		n += str(op.Set.Name) + 2*attribute
		for _, e := range op.Elements {
			n += elementBytes(op.Set, e, true)
		}
	case nft.DelElements:
		n += str(op.Set.Name) + 2*attribute
		for _, e := range op.Elements {
			n += elementBytes(op.Set, e, false)
		}
	case nft.AddChain:
		n += str(op.Chain.Name)
	case nft.FlushChain:
		n += str(op.Name)
	case nft.DelChain:
		n += str(op.Name)
	case nft.AddRule:
		n += str(op.Chain) + str(op.Rule.Comment) + attribute + expression*(1+2*len(op.Rule.Match))
	}
	return n
}

// elementBytes is the size of an element: its key in three attributes, once more for
// the end of a range, and where it leads to.
func elementBytes(s *nft.Set, e nft.Element, added bool) int {
	key := 3*attribute + (len(e.Key)+3)&^3
	n := key
	if s.Interval {
		n += key + 2*attribute
	}
	if added && e.Verdict.Kind != nft.VerdictNone {
		n += 4*attribute + 4 + str(e.Verdict.Chain)
	}
	return n
}
