package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"
)

// Bounds of requests.
const (
	// askTime is how long the agent may take for an answer; a takeover of a large
	// table takes seconds.
	askTime = 15 * time.Second
	// sendTime is how long a peer may take to read what there is for it.
	sendTime = 30 * time.Second
	// pauseTime is the same for one who follows: a pager may have stopped it.
	pauseTime = 5 * time.Minute
	// maxQuestions is how many requests are answered at a time, but for those that
	// follow.
	maxQuestions = 8
)

// Backend is an agent. Its methods are called concurrently; their contexts end when
// nobody waits any more.
type Backend interface {
	State(context.Context) (State, error)
	Audit(context.Context) (Audit, error)
	// Objects writes a v1 List of the objects that the agent knows, in JSON, in several
	// writes.
	Objects(context.Context, io.Writer) error
}

// NewHandler answers with what b says, and with the Denials of f.
func NewHandler(b Backend, f *Feed) http.Handler {
	h := handler{b, f, make(chan struct{}, maxQuestions)}
	mux := http.NewServeMux()
	mux.Handle("GET /debug/state", h.bounded(func(w http.ResponseWriter, r *http.Request) { answer(w, r, b.State) }))
	mux.Handle("GET /debug/audit", h.bounded(func(w http.ResponseWriter, r *http.Request) { answer(w, r, b.Audit) }))
	mux.Handle("GET /debug/objects", h.bounded(h.objects))
	recent := h.bounded(h.recent)
	mux.HandleFunc("GET /debug/denied", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("follow") == "1" {
			h.follow(w, r)
		} else {
			recent.ServeHTTP(w, r)
		}
	})
	return http.MaxBytesHandler(mux, 0)
}

type handler struct {
	backend Backend
	feed    *Feed
	slots   chan struct{}
}

// bounded refuses what is more than can be answered at a time.
func (h handler) bounded(f http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case h.slots <- struct{}{}:
		default:
			http.Error(w, "too many questions at a time", http.StatusServiceUnavailable)
			return
		}
		defer func() { <-h.slots }()
		f(w, r)
	})
}

// answer writes what ask returns.
func answer[T any](w http.ResponseWriter, r *http.Request, ask func(context.Context) (T, error)) {
	ctx, cancel := context.WithTimeout(r.Context(), askTime)
	defer cancel()
	v, err := ask(ctx)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	out := &timedWriter{w: w, within: sendTime}
	out.header("application/json")
	_ = json.NewEncoder(out).Encode(v) // nobody is left to be told
}

func (h handler) recent(w http.ResponseWriter, _ *http.Request) {
	out := &timedWriter{w: w, within: sendTime}
	out.header("application/x-ndjson")
	_ = writeLines(out, h.feed.Recent())
}

// follow writes Denials as they come.
func (h handler) follow(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	recent, live, err := h.feed.follow(ctx)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	out := &timedWriter{w: w, within: pauseTime}
	out.header("application/x-ndjson")
	if writeLines(out, recent) != nil || out.flush() != nil {
		return
	}
	for d, err := range live {
		var line any = d
		if lost, ok := err.(Lost); ok {
			line = gap{uint64(lost)}
		}
		if json.NewEncoder(out).Encode(line) != nil || out.flush() != nil {
			return
		}
	}
}

// gap is a line in the place of Denials that were lost.
type gap struct {
	Lost uint64 `json:"lost"`
}

func writeLines(w io.Writer, list []Denial) error {
	var lines bytes.Buffer
	e := json.NewEncoder(&lines)
	for _, d := range list {
		if err := e.Encode(d); err != nil {
			return err
		}
	}
	_, err := w.Write(lines.Bytes())
	return err
}

func (h handler) objects(w http.ResponseWriter, r *http.Request) {
	out := &timedWriter{w: w, within: sendTime}
	err := h.backend.Objects(r.Context(), out)
	switch {
	case err != nil && !out.begun:
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	case err != nil:
		panic(http.ErrAbortHandler) // so that the peer sees that this is not all
	}
}

// timedWriter gives a peer only so long to read each piece.
type timedWriter struct {
	w      http.ResponseWriter
	within time.Duration
	begun  bool
}

func (t *timedWriter) header(contentType string) {
	t.w.Header().Set("Content-Type", contentType)
	t.w.Header().Set("Cache-Control", "no-store")
	t.begun = true
}

func (t *timedWriter) Write(p []byte) (int, error) {
	if !t.begun {
		t.header("application/json")
	}
	t.extend()
	return t.w.Write(p)
}

func (t *timedWriter) flush() error {
	t.extend()
	return http.NewResponseController(t.w).Flush()
}

func (t *timedWriter) extend() {
	// A writer without deadlines, as tests have, is as good.
	_ = http.NewResponseController(t.w).SetWriteDeadline(time.Now().Add(t.within))
}
