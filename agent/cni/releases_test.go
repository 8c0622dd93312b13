package cni

import (
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// earlierRequest is all that a release without subnets knows. It refuses the rest.
type earlierRequest struct {
	Protocol int     `json:"protocol"`
	Command  Command `json:"command"`
	Attachment
	Namespace     string       `json:"namespace,omitempty"`
	Name          string       `json:"name,omitempty"`
	UID           string       `json:"uid,omitempty"`
	Addrs         []netip.Addr `json:"addrs,omitempty"`
	HostInterface string       `json:"hostInterface,omitempty"`
	Valid         []Attachment `json:"valid,omitempty"`
}

// earlierAgent is an agent of a release without subnets, as far as the socket shows. It
// does what it is asked with the error of done, and returns what it could read.
func earlierAgent(t *testing.T, path string, done error) (heard func() []earlierRequest) {
	t.Helper()
	require.NoError(t, os.Mkdir(filepath.Dir(path), 0o700))
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	ended := make(chan struct{})
	var list []earlierRequest
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			var r earlierRequest
			a := answer{Protocol: protocol}
			line, err := readLine(conn)
			if err == nil {
				err = decodeStrictly(line, &r)
			}
			switch {
			case err != nil:
				a.Error = "refused: " + err.Error()
			default:
				if list = append(list, r); done != nil {
					a.Error = done.Error()
				}
			}
			text, _ := json.Marshal(a)
			_, _ = conn.Write(append(text, '\n'))
			_ = conn.Close()
		}
	}()
	heard = func() []earlierRequest {
		_ = l.Close()
		<-ended
		return list
	}
	t.Cleanup(func() { heard() })
	return heard
}

// TestEarlierAgent is told about the pod without its subnets, and its own errors are
// no reason to ask again.
func TestEarlierAgent(t *testing.T) {
	for name, done := range map[string]error{"good": nil, "bad": errors.New("the kernel is full")} {
		t.Run(name, func(t *testing.T) {
			path := place(t)
			heard := earlierAgent(t, path, done)
			err := ask(t, path, added())
			if done == nil {
				require.NoError(t, err)
			} else {
				require.EqualError(t, err, "the agent says: the kernel is full")
			}
			want := added()
			require.Equal(t, []earlierRequest{{
				Protocol: 1, Command: Add, Attachment: want.Attachment, Namespace: want.Namespace, Name: want.Name,
				UID: want.UID, Addrs: want.Addrs, HostInterface: want.HostInterface,
			}}, heard())
		})
	}
}

// TestErrorIsNoRelease does not ask an agent again that knows subnets.
func TestErrorIsNoRelease(t *testing.T) {
	path, agent := place(t), &recorder{err: errors.New("the kernel is full")}
	serve(t, path, agent)
	require.Error(t, ask(t, path, added()))
	require.Equal(t, []Request{added()}, agent.noted())
}

// TestEarlierPlugin says nothing of subnets, and the pod has none.
func TestEarlierPlugin(t *testing.T) {
	line, err := json.Marshal(earlierRequest{Protocol: 1, Command: Add, Attachment: added().Attachment, Namespace: "shop", Name: "web-0", Addrs: added().Addrs})
	require.NoError(t, err)
	r, err := decode(line)
	require.NoError(t, err)
	require.Empty(t, r.Subnets)
	require.Equal(t, added().Addrs, r.Addrs)
}
