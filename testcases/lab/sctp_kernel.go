package lab

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// sctpMark is on the SCTP packets that we make by hand.
const sctpMark = 0x5c7b0000

// kernelHasSCTP tells whether the kernel has SCTP sockets at the moment. Asking for
// one would load the module, and thereby change the machine.
func kernelHasSCTP() bool {
	protocols, _ := os.ReadFile("/proc/net/protocols")
	for line := range strings.Lines(string(protocols)) {
		if f := strings.Fields(line); len(f) > 0 && f[0] == "SCTP" {
			return true
		}
	}
	return false
}

// silenceKernelSCTP keeps a kernel with SCTP from answering what it knows nothing
// of with ABORT, before we can answer it:
//
//	table inet lab-sctp { chain output { type filter hook output priority raw;
//	  meta l4proto sctp meta mark != 0x5c7b0000 drop } }
func (n *namespace) silenceKernelSCTP() error {
	conn, err := nftables.New(nftables.WithNetNSFd(n.fd()))
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := conn.AddTable(&nftables.Table{Name: "lab-sctp", Family: nftables.TableFamilyINet})
	chain := conn.AddChain(&nftables.Chain{
		Name: "output", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityRaw,
	})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_SCTP}},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: native(sctpMark)},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("silence the kernel's SCTP: %w", err)
	}
	return nil
}

// markSCTP marks what a socket sends as ours.
func markSCTP(socket syscall.Conn) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Control(func(fd uintptr) {
		result = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, sctpMark)
	})
	if err := errors.Join(err, result); err != nil {
		return fmt.Errorf("mark SCTP packets: %w", err)
	}
	return nil
}
