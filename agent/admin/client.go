package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"strings"
	"time"
)

// ErrUnreachable is in the error of a question that no agent has heard: none listens at
// the socket, or the caller may not connect to it.
var ErrUnreachable = errors.New("no agent answers")

// Bounds of answers, in bytes: far above what an agent sends.
const (
	maxAnswer = 256 << 20
	maxLine   = 1 << 20
)

// Client asks the agent that listens at a socket. It is safe for concurrent use.
type Client struct {
	socket string
	http   http.Client
}

// New returns a Client of the agent at the socket. It does not connect yet.
func New(socket string) *Client {
	return &Client{socket: socket, http: http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
		// Questions are few and far between: nobody has to close a Client.
		DisableKeepAlives: true, ResponseHeaderTimeout: askTime + 5*time.Second,
	}}}
}

// State returns what the agent is and has in force.
func (c *Client) State(ctx context.Context) (State, error) {
	return decode[State](ctx, c, "state")
}

// Audit returns what policies in audit mode would have denied.
func (c *Client) Audit(ctx context.Context) (Audit, error) {
	return decode[Audit](ctx, c, "audit")
}

// Objects returns a v1 List of the cluster's objects as the agent has them, in JSON, to
// be closed by the caller. If the agent cannot go on, reading ends with an error.
func (c *Client) Objects(ctx context.Context) (io.ReadCloser, error) {
	return c.get(ctx, "objects")
}

// Denied returns the last denied packets, oldest first; with follow also those that come,
// until ctx ends. An error of type Lost stands in the place of packets that are missing,
// and is not the end; any other is. The end of ctx is the end without an error.
func (c *Client) Denied(ctx context.Context, follow bool) iter.Seq2[Denial, error] {
	return c.denied(ctx, follow, func() {})
}

// Follow is Denied with follow. It calls answers when the agent begins to answer.
func (c *Client) Follow(ctx context.Context, answers func()) iter.Seq2[Denial, error] {
	return c.denied(ctx, true, answers)
}

func (c *Client) denied(ctx context.Context, follow bool, answers func()) iter.Seq2[Denial, error] {
	question := "denied"
	if follow {
		question += "?follow=1"
	}
	return func(yield func(Denial, error) bool) {
		body, err := c.get(ctx, question)
		if err != nil {
			if ctx.Err() == nil {
				yield(Denial{}, err)
			}
			return
		}
		defer body.Close()
		answers()
		lines := bufio.NewScanner(body)
		lines.Buffer(nil, maxLine)
		for lines.Scan() {
			d, err := denial(lines.Bytes())
			lost := Lost(0)
			if err != nil && !errors.As(err, &lost) {
				yield(d, fmt.Errorf("the agent's answer: %w", err))
				return
			}
			if !yield(d, err) {
				return
			}
		}
		err = lines.Err()
		if follow && err == nil {
			err = io.ErrUnexpectedEOF // nobody but us ends it
		}
		if err != nil && ctx.Err() == nil {
			yield(Denial{}, fmt.Errorf("the agent went away: %w", err))
		}
	}
}

// denial decodes a line; the error of one about a gap is a Lost.
func denial(line []byte) (Denial, error) {
	var l struct {
		Denial
		gap
	}
	if err := json.Unmarshal(line, &l); err != nil {
		return Denial{}, err
	}
	if l.Lost > 0 {
		return Denial{}, Lost(l.Lost)
	}
	return l.Denial, nil
}

func decode[T any](ctx context.Context, c *Client, question string) (v T, err error) {
	body, err := c.get(ctx, question)
	if err != nil {
		return v, err
	}
	defer body.Close()
	if err := json.NewDecoder(io.LimitReader(body, maxAnswer)).Decode(&v); err != nil {
		return v, fmt.Errorf("the agent's answer: %w", err)
	}
	return v, nil
}

// get asks, and returns what to read the answer from.
func (c *Client) get(ctx context.Context, question string) (io.ReadCloser, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/debug/"+question, nil)
	if err != nil {
		return nil, err
	}
	answer, err := c.http.Do(r)
	if err != nil {
		var dial *net.OpError
		if errors.As(err, &dial) && dial.Op == "dial" {
			return nil, fmt.Errorf("%w at %s: %w", ErrUnreachable, c.socket, dial.Err)
		}
		return nil, fmt.Errorf("ask the agent at %s: %w", c.socket, err)
	}
	if answer.StatusCode != http.StatusOK {
		defer answer.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 4096))
		return nil, fmt.Errorf("the agent says: %q", strings.TrimSpace(string(text)))
	}
	return answer.Body, nil
}
