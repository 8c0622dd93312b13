package agent

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// stuckAfter is how long one turn of the loop may take before the agent calls
// itself unhealthy. A takeover of 10,000 policies takes seconds.
const stuckAfter = 2 * time.Minute

// The topics that health is about; there is at most one reason for each.
const (
	aboutObjects   = "objects"   // the source has not delivered everything
	aboutNode      = "node"      // the own Node object is missing
	aboutRules     = "rules"     // the kernel does not hold what it should
	aboutSenders   = "senders"   // pods may be able to send with foreign addresses
	aboutManifests = "manifests" // files keep their last good objects
)

// health collects the reasons why the agent is not ready or not healthy.
type health struct {
	clock clock.PassiveClock

	mu       sync.Mutex
	unready  map[string]string
	sick     map[string]string
	busy     string // what the loop is doing, "" if it waits
	busyFrom time.Time
}

func newHealth(c clock.PassiveClock) *health {
	return &health{
		clock: c,
		unready: map[string]string{
			aboutObjects: "the cluster's objects have not all been read yet",
			aboutRules:   "no rules have been written yet",
		},
		sick: map[string]string{},
	}
}

// notReady sets the reason about a topic; an empty reason takes it back.
func (h *health) notReady(topic, reason string) { h.set(h.unready, topic, reason) }

// unhealthy sets the reason about a topic; an empty reason takes it back.
func (h *health) unhealthy(topic, reason string) { h.set(h.sick, topic, reason) }

func (h *health) set(m map[string]string, topic, reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if reason == "" {
		delete(m, topic)
		return
	}
	m[topic] = reason
}

// doing notes what the loop does from now on; "" means that it waits.
func (h *health) doing(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.busy, h.busyFrom = what, h.clock.Now()
}

// sicknesses returns the reasons why the agent is unhealthy, sorted.
func (h *health) sicknesses() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sicknessesLocked()
}

func (h *health) sicknessesLocked() []string {
	reasons := sentences(h.sick)
	if d := h.clock.Since(h.busyFrom); h.busy != "" && d > stuckAfter {
		reasons = append(reasons, fmt.Sprintf("loop: %s for %s", h.busy, d.Truncate(time.Second)))
	}
	return reasons
}

// obstacles returns the reasons why the agent is not ready, sorted. What makes it
// unhealthy is among them.
func (h *health) obstacles() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append(sentences(h.unready), h.sicknessesLocked()...)
}

func sentences(m map[string]string) []string {
	var reasons []string
	for topic, reason := range m {
		reasons = append(reasons, topic+": "+reason)
	}
	slices.Sort(reasons)
	return reasons
}

// handler serves /healthz (the agent works) and /readyz (the rules are in force):
// 200 and "ok", or 503 and one reason a line.
func (h *health) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, h.sicknesses()) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { answer(w, h.obstacles()) })
	return mux
}

func answer(w http.ResponseWriter, reasons []string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if len(reasons) == 0 {
		fmt.Fprintln(w, "ok")
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	fmt.Fprintln(w, strings.Join(reasons, "\n"))
}
