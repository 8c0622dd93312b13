package main

import (
	"fmt"
	"io"
	"time"

	"github.com/portcullis-netpol/portcullis/cmd/portcullis/tty"
)

// progress says on stderr how far a command is, if it takes longer than a second: on a
// terminal in a line that is wiped out again, elsewhere now and then.
type progress struct {
	to       io.Writer
	now      func() time.Time
	next     time.Time // when to say something again
	terminal bool
	shown    bool
}

func (a *app) newProgress() *progress {
	p := &progress{to: a.stderr, now: a.now, next: a.now().Add(time.Second)}
	p.terminal, _, _ = tty.Of(a.stderr)
	return p
}

// tell says what is being done.
func (p *progress) tell(what string) {
	switch {
	case p.now().Before(p.next):
	case p.terminal:
		p.next, p.shown = p.now().Add(time.Second/5), true
		fmt.Fprintf(p.to, "\r\x1b[K%s", what)
	default:
		p.next = p.now().Add(10 * time.Second)
		fmt.Fprintf(p.to, "portcullis: %s\n", what)
	}
}

// done wipes the line out.
func (p *progress) done() {
	if p.shown {
		fmt.Fprint(p.to, "\r\x1b[K")
	}
	p.shown = false
}

// of counts things.
func (p *progress) of(what string) func(done, total int) {
	return func(done, total int) {
		if done == total {
			p.done()
			return
		}
		p.tell(fmt.Sprintf("%d of %d %s", done, total, what))
	}
}
