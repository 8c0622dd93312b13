package scenario

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// How long an attempt waits for its answer. One that should get it waits longer from
// time to time, up to shortly before the kernel repeats a first packet: an attempt
// that needs that is as good as closed.
const (
	openWaitFirst = 50 * time.Millisecond
	openWait      = 900 * time.Millisecond
	closedWait    = 300 * time.Millisecond
)

// Flow is a TCP connection that should be possible or not.
type Flow struct {
	From, To string // pods by the names that the case gives them, nodes, the host outside
	Port     uint16
	Open     bool
}

// String writes the flow as cases do: "a>b:80" is open, "!a>b:80" is closed.
func (f Flow) String() string {
	not := "!"
	if f.Open {
		not = ""
	}
	return fmt.Sprintf("%s%s>%s:%d", not, f.From, f.To, f.Port)
}

func parseFlow(s string) (Flow, error) {
	rest, closed := strings.CutPrefix(s, "!")
	from, rest, ok1 := strings.Cut(rest, ">")
	to, port, ok2 := strings.Cut(rest, ":")
	number, err := strconv.ParseUint(port, 10, 16)
	if !ok1 || !ok2 || err != nil {
		return Flow{}, fmt.Errorf("flow %q: want [!]from>to:port", s)
	}
	return Flow{from, to, uint16(number), !closed}, nil
}

// WrongFlows is the error of a case whose flows are not as they should be: the
// policies, and nothing else, are not in force.
type WrongFlows struct {
	Step  string
	Flows []Wrong
}

// Wrong is a flow that was not as it should be, and how.
type Wrong struct {
	Flow
	FromPod, ToPod string // namespace/pod; empty for what is no pod
	How            string
}

func (w *WrongFlows) Error() string {
	var parts []string
	for i, f := range w.Flows {
		if i == 5 {
			parts = append(parts, fmt.Sprintf("and %d more", len(w.Flows)-i))
			break
		}
		parts = append(parts, f.Flow.String()+" ("+f.How+")")
	}
	return fmt.Sprintf("%s: not so: %s", w.Step, strings.Join(parts, ", "))
}

// Lax says that every flow that was wrong was open and should not have been: that is
// what a missing agent looks like, and a broken network does not.
func (w *WrongFlows) Lax() bool {
	return !slices.ContainsFunc(w.Flows, func(f Wrong) bool { return f.Open })
}

// expect asks until all flows are as they say, in both families and twice in a
// row: what is slow to open or close elsewhere shows itself the second time.
func (s *stage) expect(texts ...string) {
	var flows []Flow
	for _, t := range texts {
		f, err := parseFlow(t)
		s.must(err)
		flows = append(flows, f)
	}
	s.settle(flows, 2)
}

// settle asks until all flows are as they say, so many times in a row.
func (s *stage) settle(flows []Flow, times int) {
	deadline := time.Now().Add(s.Patience)
	wait := openWaitFirst
	for right := 0; right < times; wait = min(2*wait, openWait) {
		wrong := s.try(flows, wait)
		switch {
		case len(wrong) == 0:
			right++
			continue
		case s.ctx.Err() != nil:
			s.must(context.Cause(s.ctx))
		case time.Now().After(deadline):
			s.must(&WrongFlows{s.doing, wrong})
		}
		right = 0
		time.Sleep(10 * time.Millisecond) // between two questions
	}
}

// try tries every flow once in every family, all at once, and returns those that are
// wrong.
func (s *stage) try(flows []Flow, openWait time.Duration) []Wrong {
	const families = 2
	wrong := make([]*Wrong, families*len(flows))
	errs := make([]error, len(wrong))
	var all sync.WaitGroup
	for i, f := range flows {
		from, to := s.target(f.From), s.target(f.To)
		if len(to.addrs) != families {
			s.must(fmt.Errorf("%s has the addresses %v, not one of each family", f.To, to.addrs))
		}
		wait := closedWait
		if f.Open {
			wait = openWait
		}
		for j, addr := range to.addrs {
			all.Go(func() {
				a, err := dial(s.Cluster, from.endpoint, netip.AddrPortFrom(addr, f.Port), wait)
				if err != nil {
					errs[families*i+j] = fmt.Errorf("%v: %w", f, err)
				} else if how := s.judge(f, a); how != "" {
					wrong[families*i+j] = &Wrong{f, from.pod, to.pod, fmt.Sprintf("%v: %s", addr, how)}
				}
			})
		}
	}
	all.Wait()
	s.must(errors.Join(errs...))
	var out []Wrong
	for _, w := range wrong {
		if w != nil {
			out = append(out, *w)
		}
	}
	return out
}

// judge says what is wrong about an attempt, if anything is.
func (s *stage) judge(f Flow, a attempt) string {
	switch {
	case f.Open && !a.open:
		return a.err.Error()
	case !f.Open && a.open:
		return "connected"
	case !f.Open && a.refused() && s.Cluster.Deny == "drop":
		return "refused by the far end, so it got there"
	}
	return ""
}
