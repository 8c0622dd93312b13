package node

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrClaimed says that another agent has claimed the network namespace.
var ErrClaimed = errors.New("another Portcullis agent runs in this network namespace; two would undo each other's work, so stop one of them (ss -xa | grep portcullis-netpol shows its socket)")

// claimName is the abstract name, without its leading zero.
const claimName = "portcullis-netpol/agent"

// Claim makes the caller the only agent of a network namespace, given by a file
// descriptor (0: that of the process), until it calls release or ends, however it
// ends. If another process or another caller holds the claim, the error wraps
// [ErrClaimed].
//
// The claim is an abstract Unix socket: its name is known in one network
// namespace only, whatever the mounts and containers, the kernel frees it with the
// process, and taking it is atomic. Nothing listens on it.
func Claim(netns int) (release func() error, err error) {
	var fd int
	err = enter(netns, func() error {
		fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("claim the network namespace: %w", err)
	}
	// Go's unix package writes a leading @ as the zero of an abstract name.
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: "@" + claimName})
	if err == nil {
		return sync.OnceValue(func() error { return unix.Close(fd) }), nil
	}
	if errors.Is(err, unix.EADDRINUSE) {
		err = ErrClaimed
	}
	return nil, errors.Join(fmt.Errorf("claim the network namespace: %w", err), unix.Close(fd))
}
