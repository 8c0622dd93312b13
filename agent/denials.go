package agent

import (
	"context"
	"log/slog"
	"time"

	"k8s.io/utils/clock"

	"github.com/portcullis-netpol/portcullis/agent/admin"
	"github.com/portcullis-netpol/portcullis/nft/nflog"
)

// packetLog is what the agent asks of nflog.Conn.
type packetLog interface {
	Receive(context.Context) (nflog.Packet, error)
	Close() error
}

// Bounds of what denied packets may cost. Nothing else waits for it: what is more is
// counted as lost.
const (
	// maxWaiting is how many packets may wait for their names.
	maxWaiting = 1000
	// maxVisit is how many packets are looked up in one visit to the loop.
	maxVisit = 50
	// perPacket is the time that a packet may have for itself: 200 in a second.
	perPacket = 5 * time.Millisecond
	// restFor is how many times as long as it took to name packets nothing is done.
	restFor = 4
)

// denials tells who was denied what: it reads the packets that the rules copy to an
// nflog group, asks the loop for names, and passes what comes of it on.
//
// One goroutine reads, so that the kernel's buffer is empty, and another one names.
type denials struct {
	node string
	// packets is where they come from, nil while somebody else has the group; open
	// opens it anew.
	packets packetLog
	open    func() (packetLog, error)
	visits  visits
	feed    *admin.Feed
	audits  *audits
	lines   *denialLines
	meters  *meters
	log     *slog.Logger
	clock   clock.Clock

	waiting chan nflog.Packet
}

// takenAgain is the pause before a group that somebody else has is asked for again.
const takenAgain = time.Minute

// receive reads packets until ctx ends, and returns nil then.
func (d *denials) receive(ctx context.Context) error {
	if d.packets == nil && d.reopen(ctx, takenAgain) {
		d.log.Info("denied packets are logged now")
	}
	for ctx.Err() == nil {
		p, err := d.packets.Receive(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			d.log.Error("denied packets cannot be read; trying again", "error", err)
			_ = d.packets.Close()
			d.reopen(ctx, watchAgain)
			continue
		}
		lost := p.Lost
		select {
		case d.waiting <- p:
		default:
			lost++
		}
		d.lose(lost)
	}
	return nil
}

// reopen opens the group anew, however long it takes, with a pause before each attempt. It
// reports whether it could before ctx ended.
func (d *denials) reopen(ctx context.Context, pause time.Duration) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-d.clock.After(pause):
		}
		if packets, err := d.open(); err == nil {
			d.packets = packets
			return true
		}
	}
}

// lose notes packets that nobody will be told of.
func (d *denials) lose(n uint64) {
	d.feed.Lose(n)
	d.meters.lostPackets(n)
}

// name names packets until ctx ends, and returns nil then.
func (d *denials) name(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case p := <-d.waiting:
			batch := d.more(p)
			began := d.clock.Now()
			d.tell(ctx, batch)
			rest := max(time.Duration(len(batch))*perPacket, restFor*d.clock.Since(began))
			select {
			case <-ctx.Done():
				return nil
			case <-d.clock.After(rest):
			}
		}
	}
}

// more returns p and what else waits, as far as one visit has room.
func (d *denials) more(p nflog.Packet) []nflog.Packet {
	batch := []nflog.Packet{p}
	for len(batch) < maxVisit {
		select {
		case p := <-d.waiting:
			batch = append(batch, p)
		default:
			return batch
		}
	}
	return batch
}

// tell names packets and passes them on.
func (d *denials) tell(ctx context.Context, batch []nflog.Packet) {
	var seen []*sighting
	for _, p := range batch {
		if s, ok := sight(p); ok {
			seen = append(seen, s)
			d.meters.loggedPacket(s.reason)
		}
	}
	err := d.visits.do(ctx, func(l *loop) {
		for _, s := range seen {
			l.recognise(s)
		}
	})
	if err != nil && ctx.Err() != nil {
		return
	}
	for _, s := range seen {
		denial := s.denial(d.node, d.clock.Now())
		d.feed.Add(denial)
		if denial.Reason == admin.ReasonAudit {
			d.audits.add(denial)
		}
		d.lines.add(denial)
	}
}
