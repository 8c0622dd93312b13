package node

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

const ipvsHeader = `IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
`

func TestFirstService(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{ipvsHeader, ""},
		{ipvsHeader + "TCP  0A600001:01BB rr \n  -> C0A84D0B:192B      Masq    1      0          0         \n", "TCP 0A600001:01BB"},
		{ipvsHeader + "UDP  [fd00:0010:0096:0000:0000:0000:0000:000a]:0035 rr\n", "UDP [fd00:0010:0096:0000:0000:0000:0000:000a]:0035"},
		{ipvsHeader + "SCTP 0A600001:8E3C wlc persistent 300 FFFFFFFF\n", "SCTP 0A600001:8E3C"},
		{ipvsHeader + "FWM  00000001 rr \n", "FWM 00000001"},
		{ipvsHeader + "  -> C0A84D0B:192B      Masq    1      0          0\n", ""},
	} {
		got, err := firstService(strings.NewReader(c.text))
		require.NoError(t, err)
		require.Equal(t, c.want, got, c.text)
	}
	broken := errors.New("broken")
	_, err := firstService(iotest.ErrReader(broken))
	require.ErrorIs(t, err, broken)
}

// TestIPVSDevice gives the name of kube-proxy's device to a bridge, as not every
// kernel has dummy devices.
func TestIPVSDevice(t *testing.T) {
	l := newLab(t, lab.Routed)
	cfg := Config{NetNS: l.NetNS(nodeName)}
	found, _ := check(t, cfg, Local{})
	require.Empty(t, found, "no IPVS here")
	link := addBridge(t, l, ipvsDevice)
	found, _ = check(t, cfg, Local{})
	require.Empty(t, found, "a leftover without Services")
	inNode(t, l, func() error { return addAddr(link, "10.96.0.1/32") })
	found, conditions := check(t, cfg, Local{})
	require.Equal(t, []string{IPVSProxy}, found)
	require.Contains(t, conditions[0].Message, "10.96.0.1")
}

// TestNoIPVSInKernel says what the absence of IPVS looks like, where it is absent.
func TestNoIPVSInKernel(t *testing.T) {
	if _, err := os.Stat("/proc/self/net/ip_vs"); err == nil {
		t.Skip("this kernel has IPVS loaded")
	}
	found, err := NewChecker(Config{}).findIPVS()
	require.NoError(t, err)
	require.Empty(t, found)
}

func ipNet(s string) *net.IPNet {
	_, n, err := net.ParseCIDR(s)
	if err != nil {
		panic(err)
	}
	return n
}

// setOption switches on an option of a bridge.
func setOption(t *testing.T, l *lab.Lab, name string, option int) {
	t.Helper()
	inNode(t, l, func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		request := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
		info := nl.NewIfInfomsg(unix.AF_UNSPEC)
		info.Index = int32(link.Attrs().Index)
		request.AddData(info)
		kind := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
		kind.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
		kind.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(option, []byte{1})
		request.AddData(kind)
		_, err = request.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
}
