package agent

import (
	"context"
	"log/slog"
	"time"

	"github.com/portcullis-netpol/portcullis/agent/node"
)

// inspectEvery is how often the node is looked at: a sysctl that is turned off, or
// a kube-proxy that is started in IPVS mode, tells nobody.
const inspectEvery = 10 * time.Second

// checker is what the loop asks of node.Checker.
type checker interface {
	Check(context.Context, node.Local) (node.Report, error)
}

// conditions tells of settings of the node that let packets past the rules. It
// belongs to the loop; the nil *conditions does nothing.
type conditions struct {
	checker checker
	health  *health
	log     *slog.Logger
	told    map[string]string // messages by reason
}

// inspect looks at the node and reports what is wrong, and what no longer is. It returns
// whether pods are attached to a bridge.
func (c *conditions) inspect(ctx context.Context, local node.Local, w *warnings) (bridged bool) {
	if c == nil {
		return false
	}
	report, err := c.checker.Check(ctx, local)
	if err != nil {
		return false // told to stop
	}
	now := map[string]string{}
	for _, f := range report.Conditions {
		switch {
		case f.Repaired:
			c.log.Warn(f.Message, "reason", f.Reason)
			w.ofNode(f.Reason, f.Message)
			continue
		case now[f.Reason] != "":
			now[f.Reason] += " " + f.Message
		default:
			now[f.Reason] = f.Message
		}
	}
	for reason, message := range now {
		if c.told[reason] != message {
			c.log.Error(message, "reason", reason)
			w.ofNode(reason, message)
		}
		c.health.notReady(reason, message)
	}
	for reason := range c.told {
		if now[reason] == "" {
			c.log.Info("no longer so", "reason", reason)
			c.health.notReady(reason, "")
		}
	}
	c.told = now
	return report.Bridged
}
