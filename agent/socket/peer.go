package socket

import (
	"fmt"
	"net"
	"syscall"
)

// PeerIsRoot asks the kernel who connected, and returns an error unless it was root, as
// this process's user namespace has it.
func PeerIsRoot(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("peer: %w", err)
	}
	var who *syscall.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) {
		who, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return fmt.Errorf("peer: %w", err)
	}
	if failed != nil {
		return fmt.Errorf("peer: %w", failed)
	}
	return mayAsk(who)
}

// mayAsk refuses everybody but root.
func mayAsk(who *syscall.Ucred) error {
	if who.Uid != 0 {
		return fmt.Errorf("user %d is not root", who.Uid)
	}
	return nil
}
