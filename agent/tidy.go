package agent

import (
	"context"
	"time"
)

// What changes leave behind is removed when none has followed for tidyAfter, or after
// tidyAtLast at the latest: that takes a wait for packets, in which no change is written.
const (
	tidyAfter  = 100 * time.Millisecond
	tidyAtLast = 500 * time.Millisecond
)

// tidySoon sees to it that what is left behind now will be removed.
func (l *loop) tidySoon() {
	if !l.enforcer.Untidy() {
		return
	}
	if l.tidy == nil {
		l.untidySince = l.clock.Now()
	}
	l.tidy = l.clock.After(min(tidyAfter, l.untidySince.Add(tidyAtLast).Sub(l.clock.Now())))
}

// tidyUp removes what changes left behind. It returns as turn does.
func (l *loop) tidyUp(ctx context.Context) <-chan time.Time {
	began := l.clock.Now()
	err := l.enforcer.Tidy(ctx)
	if ctx.Err() == nil {
		l.meters.committed(opTidy, began, err)
	}
	if err == nil || ctx.Err() != nil {
		return nil
	}
	return l.failed(err)
}

// lapseAgain is the pause after a failure to take away what looks for forbidden flows.
const lapseAgain = time.Minute

// lapseLater sees to it that what looks for forbidden flows goes when none is forbidden any
// more. Every packet pays for it.
func (l *loop) lapseLater() {
	if l.lapse == nil && l.enforcer.Forbidding() {
		l.lapse = l.clock.After(forbidFor)
	}
}

// lapsed takes it away, or returns what to wait for before the next attempt.
func (l *loop) lapsed(ctx context.Context) <-chan time.Time {
	rest, err := l.enforcer.Lapse(ctx)
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		l.log.Warn("rules for cut connections stay in force longer than they have to", "error", err, "retryIn", lapseAgain)
		rest = lapseAgain
	case rest <= 0:
		return nil
	}
	return l.clock.After(rest)
}
