package admin

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strconv"
	"sync"
)

// Kept is how many Denials a Feed remembers.
const Kept = 1000

// Bounds of a Feed.
const (
	waiting      = 1000 // Denials that wait for a follower
	maxFollowers = 16
)

// Lost is how many Denials are missing between two others.
type Lost uint64

// Error says so.
func (n Lost) Error() string {
	if n == 1 {
		return "1 denied packet is not shown: there were too many"
	}
	return strconv.FormatUint(uint64(n), 10) + " denied packets are not shown: there were too many"
}

// errTooMany is the answer to one follower more.
var errTooMany = errors.New("too many are following already")

// Feed passes Denials on to whoever follows, and remembers the last 1,000. It is safe
// for concurrent use.
type Feed struct {
	mu        sync.Mutex
	ring      []Denial // the oldest is at next once there are Kept
	next      int
	followers map[*follower]bool
}

// follower has what Add has brought and was not taken.
type follower struct {
	wake  chan struct{} // holds a token while there may be something
	queue []item
	lost  uint64 // that came after those of queue
}

// item is a Denial, and how many were lost in front of it.
type item struct {
	Denial
	lost uint64
}

// NewFeed returns an empty Feed.
func NewFeed() *Feed { return &Feed{followers: map[*follower]bool{}} }

// Add passes d on. It does not wait. What d refers to must not change any more.
func (f *Feed) Add(d Denial) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.ring) < Kept {
		f.ring = append(f.ring, d)
	} else {
		f.ring[f.next] = d
		f.next = (f.next + 1) % Kept
	}
	for x := range f.followers {
		if len(x.queue) == waiting {
			x.lost++
		} else {
			x.queue = append(x.queue, item{d, x.lost})
			x.lost = 0
		}
		x.tell()
	}
}

// Lose tells those who follow that n packets have become no Denials.
func (f *Feed) Lose(n uint64) {
	if n == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for x := range f.followers {
		x.lost += n
		x.tell()
	}
}

func (x *follower) tell() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// Recent returns the last Denials, oldest first.
func (f *Feed) Recent() []Denial {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.recentLocked()
}

func (f *Feed) recentLocked() []Denial {
	return slices.Concat(f.ring[f.next:], f.ring[:f.next])
}

// follow returns the recent Denials, and a sequence of those that come later, until ctx
// ends. An error of the sequence is a Lost.
func (f *Feed) follow(ctx context.Context) ([]Denial, iter.Seq2[Denial, error], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.followers) == maxFollowers {
		return nil, nil, errTooMany
	}
	x := &follower{wake: make(chan struct{}, 1)}
	f.followers[x] = true
	context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.followers, x)
	})
	return f.recentLocked(), func(yield func(Denial, error) bool) {
		for {
			select {
			case <-ctx.Done():
				return
			case <-x.wake:
			}
			queue, lost := f.take(x)
			for _, i := range queue {
				if i.lost > 0 && !yield(Denial{}, Lost(i.lost)) || !yield(i.Denial, nil) {
					return
				}
			}
			if lost > 0 && !yield(Denial{}, Lost(lost)) {
				return
			}
		}
	}, nil
}

func (f *Feed) take(x *follower) ([]item, uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	queue, lost := x.queue, x.lost
	x.queue, x.lost = nil, 0
	return queue, lost
}
