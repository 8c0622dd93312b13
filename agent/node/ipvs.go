package node

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
)

// ipvsDevice is where kube-proxy in IPVS mode keeps the addresses of Services.
const ipvsDevice = "kube-ipvs0"

// ipvs reports IPVS services.
func (c *Checker) ipvs() []Condition {
	found, err := c.findIPVS()
	if err != nil {
		return []Condition{unreadable("IPVS", err)}
	}
	if found == "" {
		return nil
	}
	return []Condition{{Reason: IPVSProxy, Message: fmt.Sprintf(
		"This node has IPVS services (%s): packets to a Service do not cross the forward hook and get past policies. Run kube-proxy in mode nftables or iptables.", found)}}
}

// findIPVS returns what gives IPVS away, or nothing.
func (c *Checker) findIPVS() (string, error) {
	f, err := os.Open(filepath.Join(c.proc, "thread-self/net/ip_vs"))
	switch {
	case err == nil:
		defer f.Close()
		service, err := firstService(f)
		if service != "" || err != nil {
			return service, err
		}
	case !errors.Is(err, os.ErrNotExist):
		return "", err
	}
	link, err := netlink.LinkByName(ipvsDevice)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("look for %s: %w", ipvsDevice, err)
	}
	addrs, err := listAddrs(link)
	if err != nil {
		return "", err
	}
	// Without addresses it is a leftover that leads no packet astray.
	for _, a := range addrs {
		if !a.IP.IsLinkLocalUnicast() {
			return fmt.Sprintf("%s has address %v", ipvsDevice, a.IP), nil
		}
	}
	return "", nil
}

// firstService reads /proc/net/ip_vs as far as the first service:
//
//	IP Virtual Server version 1.2.1 (size=4096)
//	Prot LocalAddress:Port Scheduler Flags
//	  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
//	TCP  0A60000A:0035 rr
//	  -> 0AF40002:0035      Masq    1      0          0
//
// Services by firewall mark are "FWM  00000001 rr".
func firstService(r io.Reader) (string, error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "TCP", "UDP", "SCTP", "FWM":
			return f[0] + " " + f[1], nil
		}
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("read IPVS services: %w", err)
	}
	return "", nil
}
