package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/agent/socket"
)

// exchangeTime is how long reading a request or writing an answer may take. Both
// sides are on one machine and have their message ready.
const exchangeTime = 5 * time.Second

// most is how many connections are served at a time. Further ones wait in the
// socket's queue.
const most = 256

// Handler is the agent. Its methods are called concurrently, with valid requests.
// Their contexts end when the plugin hangs up, when the Server stops, and after
// MaxTimeout. An error is told to the plugin, which tells it to the container
// runtime; after its context has ended nobody hears it.
type Handler interface {
	// Add returns when the kernel holds the pod's policies, or when it cannot. It is
	// called again for the same attachment if the plugin is.
	Add(context.Context, Request) error
	// Del is told that the attachment is gone. It may be one that Add never saw.
	Del(context.Context, Request) error
	// Check returns an error unless the kernel holds the pod's policies.
	Check(context.Context, Request) error
	// GC is told all attachments that exist; what is not among them is gone.
	GC(context.Context, []Attachment) error
}

// Server is the agent's end of the socket.
type Server struct {
	// Logger is told about peers and requests that are refused. Nil means nobody is.
	Logger *slog.Logger

	listener *socket.Listener
	exchange time.Duration
}

// Listen makes the socket. A request that comes before Serve waits.
//
// The directory is made with mode 0700 if it is missing; for what else may be there,
// see socket.Listen.
func Listen(path string) (*Server, error) {
	l, err := socket.Listen(path, 0o700)
	if err != nil {
		return nil, err
	}
	return &Server{listener: l, exchange: exchangeTime}, nil
}

// Serve answers requests until ctx ends, and then removes the socket, ends what the
// Handler is doing and returns nil. Whoever is not answered then sees an agent that
// is away. Any other end is an error. Call it once.
func (s *Server) Serve(ctx context.Context, h Handler) error {
	ctx, cancel := context.WithCancel(ctx)
	var serving sync.WaitGroup
	defer serving.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = s.listener.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	defer s.Close()
	slots := make(chan struct{}, most)
	for {
		select {
		case <-ctx.Done():
			return nil
		case slots <- struct{}{}:
		}
		conn, err := s.accept(ctx)
		if err != nil {
			return fmt.Errorf("socket %s: %w", s.listener.Path(), err)
		}
		if conn == nil {
			return nil
		}
		serving.Go(func() {
			defer func() { <-slots }()
			defer conn.Close()
			s.serve(ctx, conn, h)
		})
	}
}

// accept returns the next connection, or none when ctx has ended. It outlives a
// moment without file descriptors or memory: the connection waits meanwhile.
func (s *Server) accept(ctx context.Context) (*net.UnixConn, error) {
	const pause = 100 * time.Millisecond
	for {
		conn, err := s.listener.AcceptUnix()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return nil, nil
		}
		if err == nil {
			return conn, nil
		}
		if !slices.ContainsFunc([]error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ECONNABORTED},
			func(e error) bool { return errors.Is(err, e) }) {
			return nil, err
		}
		s.refused("accept", err)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// Close removes the socket, if it is still ours. It is for a Server that does not
// Serve; Serve closes it by itself.
func (s *Server) Close() error { return s.listener.Close() }

// serve answers one connection.
func (s *Server) serve(ctx context.Context, conn *net.UnixConn, h Handler) {
	if err := socket.PeerIsRoot(conn); err != nil {
		s.refused("peer", err)
		s.reply(conn, err)
		return
	}
	_ = conn.SetReadDeadline(time.Now().Add(s.exchange))
	line, err := readLine(conn)
	if err != nil {
		s.refused("read", err)
		s.reply(conn, fmt.Errorf("read the request: %w", err))
		return
	}
	r, err := decode(line)
	if err != nil {
		s.refused("request", err)
		s.reply(conn, fmt.Errorf("refused: %w", err))
		return
	}
	ctx, cancel := context.WithTimeout(ctx, MaxTimeout)
	defer cancel()
	watched := watch(conn, cancel)
	err = do(ctx, h, r)
	if ctx.Err() == nil {
		s.reply(conn, err)
	}
	// Ends the watch, which reads.
	_ = conn.SetReadDeadline(time.Unix(1, 0))
	<-watched
}

// watch calls hungUp when the peer closes the connection or says more than one
// request. The channel is closed when the watch has ended.
func watch(conn *net.UnixConn, hungUp func()) <-chan struct{} {
	_ = conn.SetReadDeadline(time.Time{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, err := conn.Read(make([]byte, 1))
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			hungUp()
		}
	}()
	return ended
}

func do(ctx context.Context, h Handler, r Request) error {
	switch r.Command {
	case Add:
		return h.Add(ctx, r)
	case Del:
		return h.Del(ctx, r)
	case Check:
		return h.Check(ctx, r)
	case GC:
		return h.GC(ctx, r.Valid)
	case Status:
		return nil
	}
	return fmt.Errorf("command %q", r.Command) // decode lets none through
}

// reply says that the request is done, or why it is not.
func (s *Server) reply(conn *net.UnixConn, err error) {
	a := answer{Protocol: protocol}
	if err != nil {
		a.Error = short(err.Error())
	}
	line, err := json.Marshal(a)
	if err != nil {
		s.refused("answer", err) // cannot be: a number and a string
		return
	}
	_ = conn.SetWriteDeadline(time.Now().Add(s.exchange))
	if _, err := conn.Write(append(line, '\n')); err != nil {
		s.refused("answer", err)
	}
}

// short bounds an error's text; it may repeat what was asked.
func short(text string) string {
	const room = 4096
	if text == "" {
		return "failed without a reason"
	}
	if len(text) > room {
		return text[:room] + " ..."
	}
	return text
}

func (s *Server) refused(what string, err error) {
	if s.Logger != nil {
		s.Logger.Warn("CNI request refused", "at", what, "err", short(err.Error()))
	}
}
