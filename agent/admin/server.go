package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/portcullis-netpol/portcullis/agent/socket"
)

// maxConns is how many connections there may be at a time. Further ones wait in the
// socket's queue.
const maxConns = 64

// Server is the agent's end of the socket.
type Server struct {
	// Logger is told about peers that are refused. Nil means nobody is.
	Logger *slog.Logger

	listener *socket.Listener
}

// Listen makes the socket; its directory with mode 0755 if it is missing. For what else
// may be there, see socket.Listen. A request that comes before Serve waits.
func Listen(path string) (*Server, error) {
	l, err := socket.Listen(path, 0o755)
	if err != nil {
		return nil, err
	}
	return &Server{listener: l}, nil
}

// Serve answers requests until ctx ends, and then removes the socket, ends the requests
// that are under way and returns nil. Any other end is an error. Call it once.
func (s *Server) Serve(ctx context.Context, h http.Handler) error {
	defer s.Close()
	server := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 1 << 13,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	l := &gate{Server: s, slots: make(chan struct{}, maxConns), closed: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("socket %s: %w", s.listener.Path(), err)
	}
	return nil
}

// Close removes the socket, if it is still ours. It is for a Server that does not Serve;
// Serve closes it by itself.
func (s *Server) Close() error { return s.listener.Close() }

// gate is a listener that lets root in, and only so many at a time.
type gate struct {
	*Server
	slots  chan struct{}
	once   sync.Once
	closed chan struct{}
}

func (g *gate) Addr() net.Addr { return g.listener.Addr() }

func (g *gate) Close() error {
	g.once.Do(func() { close(g.closed) })
	return g.Server.Close()
}

func (g *gate) Accept() (net.Conn, error) {
	select {
	case g.slots <- struct{}{}:
	case <-g.closed:
		return nil, net.ErrClosed
	}
	for {
		conn, err := g.listener.AcceptUnix()
		if err != nil {
			<-g.slots
			return nil, err
		}
		if err := socket.PeerIsRoot(conn); err != nil {
			if g.Logger != nil {
				g.Logger.Warn("admin socket: refused", "error", err)
			}
			_ = conn.Close()
			continue
		}
		return &slot{Conn: conn, release: sync.OnceFunc(func() { <-g.slots })}, nil
	}
}

// slot is a connection that counts until it is closed.
type slot struct {
	net.Conn
	release func()
}

func (s *slot) Close() error {
	defer s.release()
	return s.Conn.Close()
}
