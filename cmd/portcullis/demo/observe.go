package demo

import (
	"context"
	"sync"
	"time"

	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

const (
	// observeEvery is the time between two connections of one witness, and with it
	// how precisely the moment of a change is known.
	observeEvery = 5 * time.Millisecond
	// observeWait is how long a witness waits for an answer: less than it takes for
	// any probe to send a second packet, so that the verdict is that of the first.
	observeWait = 40 * time.Millisecond
)

// witness is a connection whose verdict is about to change.
type witness struct {
	probe lab.Probe
	want  bool // the new verdict
}

// observation tries witnesses again and again, each time as a new connection.
type observation struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
	tracks []*track
}

// track is what one witness has seen.
type track struct {
	witness
	mu      sync.Mutex
	lastOld time.Time // start of the last attempt that saw the old verdict
	news    []time.Time
}

// observe starts; stop ends it after one attempt more.
func observe(ctx context.Context, l *lab.Lab, witnesses []witness) *observation {
	ctx, cancel := context.WithCancel(ctx)
	o := &observation{cancel: cancel}
	for _, w := range witnesses {
		t := &track{witness: w}
		o.tracks = append(o.tracks, t)
		o.done.Go(func() { t.run(ctx, l) })
	}
	return o
}

func (o *observation) stop() {
	o.cancel()
	o.done.Wait()
}

// since tells, for every witness that saw the change, how long after a moment it
// made the first connection that was judged anew, never to be judged as before.
func (o *observation) since(start time.Time) []time.Duration {
	var out []time.Duration
	for _, t := range o.tracks {
		for _, at := range t.news {
			if at.After(t.lastOld) && at.After(start) {
				out = append(out, at.Sub(start))
				break
			}
		}
	}
	return out
}

func (t *track) run(ctx context.Context, l *lab.Lab) {
	tick := time.NewTicker(observeEvery)
	defer tick.Stop()
	var attempts sync.WaitGroup
	defer attempts.Wait()
	for {
		attempts.Go(func() { t.attempt(l) })
		select {
		case <-tick.C:
		case <-ctx.Done():
			attempts.Go(func() { t.attempt(l) })
			return
		}
	}
}

func (t *track) attempt(l *lab.Lab) {
	at := time.Now()
	r := l.Probe(context.Background(), []lab.Probe{t.probe}, lab.Timing{Allow: observeWait})[0]
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.OK != t.want {
		if at.After(t.lastOld) {
			t.lastOld = at
		}
		return
	}
	// In the order of their starts, though they end in any.
	i := len(t.news)
	for i > 0 && t.news[i-1].After(at) {
		i--
	}
	t.news = append(t.news, time.Time{})
	copy(t.news[i+1:], t.news[i:])
	t.news[i] = at
}
