package main

import (
	"errors"
	"fmt"
	"strings"
)

// combination is what differs between the clusters of the matrix.
type combination struct {
	topology string // routed, bridge
	family   string // 4, 6
	proxy    string // nftables, iptables
	deny     string // drop, reject
}

// everyPair has every pair of values of two flags in at least one line.
var everyPair = []combination{
	{"routed", "4", "nftables", "drop"},
	{"routed", "6", "iptables", "reject"},
	{"bridge", "4", "iptables", "reject"},
	{"bridge", "6", "nftables", "reject"},
	{"bridge", "6", "iptables", "drop"},
}

func (c combination) validate() error {
	return errors.Join(
		oneOf("topology", c.topology, "routed", "bridge"),
		oneOf("ip-family", c.family, "4", "6"),
		oneOf("kube-proxy", c.proxy, "nftables", "iptables"),
		oneOf("deny", c.deny, "drop", "reject"),
	)
}

func (c combination) String() string {
	return fmt.Sprintf("pods %s, IPv%s first, kube-proxy %s, deny by %s", c.topology, c.family, c.proxy, c.deny)
}

// folder is a name for the combination's files.
func (c combination) folder() string {
	return strings.Join([]string{c.topology, "ipv" + c.family, c.proxy, c.deny}, "-")
}
