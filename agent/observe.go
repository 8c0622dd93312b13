package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/portcullis-netpol/portcullis/agent/admin"
	"github.com/portcullis-netpol/portcullis/nft/nflog"
)

// openLog opens the group that denied packets are copied to. If it is not to be had, it
// returns nil and sets c.LogGroup to 0: rules that copy packets to nobody are of no use.
// While somebody else has it, it returns nil, too, and c.LogGroup stays: they may go.
func (c *Config) openLog() packetLog {
	if c.LogGroup == 0 {
		return nil
	}
	packets, err := c.openPackets(c.NetNS, c.LogGroup)
	switch {
	case errors.Is(err, nflog.ErrTaken):
		c.Logger.Warn("denied packets are not logged; trying again", "every", takenAgain, "nflogGroup", c.LogGroup, "error", err)
		return nil
	case err != nil:
		c.Logger.Warn("denied packets are not logged", "nflogGroup", c.LogGroup, "error", err)
		c.LogGroup = 0
		return nil
	}
	return packets
}

// observe returns what has to run, beside the loop, so that people see what the agent
// does: it reads denied packets from packets, or once they are to be had if it is nil, and
// answers at the admin socket, if there is one. stop ends what was opened.
func observe(cfg Config, l *loop, packets packetLog, ended <-chan struct{}) (run []func(context.Context) error, stop func(), err error) {
	v := visits{l.visits, ended}
	b := &backend{
		node: cfg.Node, version: cfg.Version, started: cfg.Clock.Now(), visits: v, health: l.health,
		audits: newAudits(cfg.Clock.Now()), tally: newTally(v, cfg.Clock), nodeAddrs: links{cfg.NetNS}.addrs,
	}
	l.meters.registry.MustRegister(b.tally)
	feed := admin.NewFeed()
	stop = func() {}
	if cfg.LogGroup != 0 {
		d := &denials{
			node: cfg.Node, packets: packets, open: func() (packetLog, error) { return cfg.openPackets(cfg.NetNS, cfg.LogGroup) },
			visits: v, feed: feed, audits: b.audits, lines: newDenialLines(cfg.Logger, cfg.Clock), meters: l.meters,
			log: cfg.Logger, clock: cfg.Clock, waiting: make(chan nflog.Packet, maxWaiting),
		}
		run = append(run, d.receive, d.name)
		stop = func() {
			if d.packets != nil {
				_ = d.packets.Close()
			}
		}
	}
	if cfg.AdminSocket == "" {
		return run, stop, nil
	}
	server, err := admin.Listen(cfg.AdminSocket)
	if err != nil {
		return nil, stop, fmt.Errorf("admin socket: %w", err)
	}
	server.Logger = cfg.Logger
	end := stop
	stop = func() { _ = server.Close(); end() }
	handler := admin.NewHandler(b, feed)
	return append(run, func(ctx context.Context) error { return server.Serve(ctx, handler) }), stop, nil
}
