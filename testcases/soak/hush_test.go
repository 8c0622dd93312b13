package soak

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// again is how many messages each way show that a flow goes on, or that it does not.
// They are sent over a longer time than an agent takes for its second look.
const again = 15

// goesOn uses a flow in both directions.
func goesOn(l line) error {
	for i := range 2 * again {
		arrived, err := l.say(end(i%2), patience)
		if err != nil || !arrived {
			return fmt.Errorf("the flow does not go on: %s's message %d: %w", end(i%2), i, cmp.Or(err, errors.New("lost")))
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// hushed uses a flow until 2*again messages in a row are lost, and goes on trying for
// as long again. It returns when the first of them was lost. A message that is late
// because the machine is slow does not end a flow, but begins a row.
func hushed(l line, p place) (at time.Time, err error) {
	deadline := time.Now().Add(patience)
	for lost := 0; lost < 2*again; {
		arrived, _ := l.say(turn(p, lost), 20*time.Millisecond)
		switch {
		case arrived:
			lost = 0
		case lost == 0:
			at = time.Now()
			fallthrough
		default:
			lost++
		}
		if time.Now().After(deadline) {
			return at, errors.New("the flow goes on, though nothing allows it")
		}
	}
	for i := range 2 * again {
		if arrived, _ := l.say(turn(p, i), 20*time.Millisecond); arrived {
			return at, fmt.Errorf("the flow goes on again: %s's message %d arrived", turn(p, i), i)
		}
	}
	return at, nil
}

// turn says whose turn it is to send.
func turn(p place, i int) end {
	if i%2 == 0 {
		return p.first
	}
	return p.first.other()
}

// over sees to it that a flow is over and that these ends of it are told.
func over(l line, p place, ends ...end) (at time.Time, err error) {
	if at, err = hushed(l, p); err == nil {
		err = told(l, p, ends...)
	}
	return at, err
}

// told waits until these ends of a TCP connection know that it is over. Of other
// flows nobody is told.
func told(l line, p place, ends ...end) error {
	if p.protocol != "tcp" {
		return nil
	}
	for _, e := range ends {
		for deadline := time.Now().Add(patience); ; {
			if _, err := l.say(e, 20*time.Millisecond); err != nil {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("the %s is not told that the connection is over", e)
			}
		}
	}
	return nil
}

// throughService reports whether a flow goes to a cluster IP.
func throughService(p place) bool {
	return slices.Contains(slices.Concat(clusterIPs["near"], clusterIPs["far"]), p.to)
}

// whoIsTold returns the ends of a cut flow that TestCut expects to be told. The
// clients that it leaves out are those of TestCutTellsThroughServices.
func whoIsTold(topo lab.Topology, p place) []end {
	if topo == lab.Bridged && throughService(p) {
		return []end{server}
	}
	return []end{client, server}
}

// TestCutTellsThroughServices cuts TCP connections to cluster IPs. Between bridged pods
// the kernel's own resets do not take the way back through the translation. Both ends
// must be told nevertheless.
func TestCutTellsThroughServices(t *testing.T) {
	for _, topo := range topologies {
		for _, c := range cutCases[:2] {
			t.Run(topo.String()+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				lab.Require(t, needs...)
				s := newCutSite(t, topo)
				s.startAll()
				s.policies(c.before)
				places := slices.DeleteFunc(s.places(), func(p place) bool { return p.protocol != "tcp" || !throughService(p) })
				lines := s.connect(places)
				s.policies(c.after)
				var untold atomic.Int64
				s.each(places, func(i int, p place) error {
					_, err := over(lines[i], p, client, server)
					if err != nil {
						untold.Add(1)
					}
					return err
				})
				s.result(fmt.Sprintf("connections through Services cut by a change of %s, %s", c.name, topo), "%d TCP connections, %d with an end that was not told", len(places), untold.Load())
			})
		}
	}
}
