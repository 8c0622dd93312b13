package agent

import (
	"errors"
	"runtime/debug"
	"time"

	"github.com/portcullis-netpol/portcullis/nft"
)

// succeeded notes that the kernel holds what the index says.
func (l *loop) succeeded() {
	l.meters.synced()
	l.policies.written(l.clock.Now())
	if l.uncertain {
		l.log.Info("repaired: the kernel holds what it should")
	}
	if !l.taken && l.untracked {
		l.settled = l.clock.After(settleFor)
	}
	if !l.taken {
		go debug.FreeOSMemory() // reading a large cluster leaves as much garbage as there is to keep
	}
	l.taken, l.uncertain, l.backoff = true, false, retries()
	l.rebuild, l.disturbed, l.audited = false, false, false
	l.health.notReady(aboutRules, "")
	l.health.unhealthy(aboutRules, "")
	if l.revision != "" && !l.announced {
		l.log.Info("in force", "revision", l.revision)
	}
	l.announced = true
}

// failed notes that it may not, and returns what to wait for before the next attempt.
func (l *loop) failed(err error) <-chan time.Time {
	l.uncertain = true
	l.health.unhealthy(aboutRules, err.Error())
	pause := l.backoff.Step()
	msg := "the rules could not be written; what was in force stays in force"
	if errors.Is(err, nft.ErrUncertain) {
		msg = "the outcome of a write to the kernel is unknown; looking at what it holds"
	}
	l.log.Error(msg, "error", err, "retryIn", pause)
	return l.clock.After(pause)
}
