package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// ErrUnreachable is in the error of a request that the agent has not answered: there
// is no agent, or it did not answer in time. Any other error of a valid request is
// the agent's own answer.
var ErrUnreachable = errors.New("the agent does not answer")

// retryAfter is the pause between two attempts to reach an agent that is away.
const retryAfter = 50 * time.Millisecond

// Client is the path of the agent's socket.
type Client string

// Do asks the agent and waits for its answer, until ctx ends.
//
// An Add outlives an agent that is away or goes away: it is asked again until ctx
// ends, which must therefore have a deadline. So a pod that starts while the agent is
// replaced waits for the new one. Everything else is asked once. An agent of a release
// that knows no Subnets is asked without them.
func (c Client) Do(ctx context.Context, r Request) error {
	if err := r.Validate(); err != nil {
		return err
	}
	line, err := encode(r)
	if err != nil {
		return err
	}
	earlier := r // as releases know it that had no subnets
	earlier.Subnets = nil
	plain, err := encode(earlier)
	if err != nil {
		return err
	}
	for {
		err := c.ask(ctx, line)
		if len(r.Subnets) > 0 && refusesSubnets(err) {
			err = c.ask(ctx, plain)
		}
		if err == nil || !errors.Is(err, ErrUnreachable) || r.Command != Add {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(retryAfter):
		}
	}
}

// refusesSubnets reports whether err is the answer of an agent of a release that did not
// know Request.Subnets. All agents refuse fields that they do not know, in these words.
func refusesSubnets(err error) bool {
	var told *agentsError
	return errors.As(err, &told) && strings.Contains(told.text, `unknown field "subnets"`)
}

// agentsError is what the agent answered.
type agentsError struct{ text string }

func (e *agentsError) Error() string { return "the agent says: " + e.text }

// ask makes one attempt.
func (c Client) ask(ctx context.Context, line []byte) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", string(c))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	defer conn.Close() // tells the Server that nobody waits
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	lost := func(err error) error {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("%w: %s: %w", ErrUnreachable, string(c), err)
	}
	// A Server that refuses may answer and close before it has read everything.
	_, unsent := conn.Write(line)
	reply, err := readLine(conn)
	if err != nil {
		return lost(errors.Join(unsent, err))
	}
	var a answer
	// An agent of another release may say more; what matters here is the error.
	if err := json.Unmarshal(reply, &a); err != nil {
		return fmt.Errorf("the agent's answer: %w", err)
	}
	if a.Error != "" {
		return &agentsError{a.Error}
	}
	return nil
}
