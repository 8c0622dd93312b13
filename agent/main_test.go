package agent

import (
	"fmt"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

func TestMain(m *testing.M) { lab.Main(withLoopback{m}, lab.NFTables) }

// withLoopback runs the tests after it has made sure that they can reach a health
// endpoint: in a network namespace of our own the loopback interface is down.
type withLoopback struct{ *testing.M }

func (m withLoopback) Run() int {
	if err := raiseLoopback(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.M.Run()
}

func raiseLoopback() error {
	lo, err := net.InterfaceByName("lo")
	if err != nil || lo.Flags&net.FlagUp != 0 {
		return err
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	flags, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	flags.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, flags)
}
