package main

import (
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/portcullis-netpol/portcullis/agent/admin"
)

// denialText is a packet in one line.
func denialText(d *admin.Denial, style textStyle, zone *time.Location) string {
	words := []string{d.Time.In(zone).Format("15:04:05.000")}
	if d.Node != "" {
		words = append(words, printable(d.Node))
	}
	reason, colour := reasonText(d)
	words = append(words, style.paint(colour, reason), endText(d.Source, d.SourcePort), "->", endText(d.Destination, d.Port), portName(d.Protocol, d.Port))
	line := strings.Join(words, " ")
	if len(d.Policies) > 0 {
		line += ": " + policiesText(d)
	}
	if d.Closest != nil {
		line += "; " + closestText(d.Closest)
	}
	return line
}

// reasonText says what became of a packet, and in which colour.
func reasonText(d *admin.Denial) (text, colour string) {
	direction := printable(d.Direction)
	switch d.Reason {
	case admin.ReasonPolicy:
		return direction + " denied", "31"
	case admin.ReasonAudit:
		return direction + " would be denied", "33"
	case admin.ReasonQuarantine:
		return direction + " in quarantine", "35"
	case admin.ReasonCut:
		return "connection cut", "36"
	}
	return strings.TrimSpace(direction + " " + printable(string(d.Reason))), "31"
}

func policiesText(d *admin.Denial) string {
	names := printable(few(d.Policies))
	if d.Reason == admin.ReasonAudit {
		return "by " + names + " (audit mode)"
	}
	return "no rule of " + names + " allows it"
}

// closestText names the rule that almost allows something.
func closestText(c *admin.Closest) string {
	return "closest is " + printable(c.Rule) + " of " + printable(c.Policy) + ": " + printable(c.Missing)
}

// endText is a pod with its address, or an address alone.
func endText(e admin.End, port uint16) string {
	addr := e.Addr.String()
	if port != 0 {
		addr = net.JoinHostPort(addr, strconv.Itoa(int(port)))
	}
	if e.Pod == "" {
		return printable(addr)
	}
	return printable(e.Pod + " (" + addr + ")")
}

// portName is a protocol with its port, if it has ports.
func portName(protocol string, port uint16) string {
	if port == 0 {
		return printable(protocol)
	}
	return printable(protocol) + "/" + strconv.Itoa(int(port))
}
