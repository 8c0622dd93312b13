package cni

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// mostAddrs is how many addresses, or subnets, one interface may have. More are a
// mistake.
const mostAddrs = 64

// checkAddrs accepts what an interface of a pod can have.
func checkAddrs(addrs []netip.Addr) error {
	if len(addrs) == 0 {
		return errors.New("none")
	}
	if len(addrs) > mostAddrs {
		return fmt.Errorf("%d addresses, more than %d", len(addrs), mostAddrs)
	}
	for i, a := range addrs {
		if err := CheckAddr(a); err != nil {
			return err
		}
		if slices.Contains(addrs[:i], a) {
			return fmt.Errorf("%s twice", a)
		}
	}
	return nil
}

// CheckAddr reports why an address cannot be that of a pod.
func CheckAddr(a netip.Addr) error {
	switch {
	case !a.IsValid():
		return errors.New("an empty address")
	case a.Zone() != "":
		return fmt.Errorf("%s has a zone", a)
	case a.Is4In6():
		return fmt.Errorf("%s is an IPv4 address in IPv6 form", a)
	case a.IsUnspecified(), a.IsLoopback(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("%s is not a unicast address of a pod", a)
	}
	return nil
}

// checkSubnets accepts what can be a network and its gateway. Which of them the agent
// uses is another matter.
func checkSubnets(list []Subnet) error {
	if len(list) > mostAddrs {
		return fmt.Errorf("%d subnets, more than %d", len(list), mostAddrs)
	}
	for i, s := range list {
		if err := s.Validate(); err != nil {
			return err
		}
		if slices.Contains(list[:i], s) {
			return fmt.Errorf("%s by way of %s twice", s.Prefix, s.Gateway)
		}
	}
	return nil
}

// Validate reports what is wrong with the form of a subnet.
func (s Subnet) Validate() error {
	switch {
	case !s.Prefix.IsValid():
		return errors.New("an empty prefix")
	case s.Prefix.Addr().Is4In6():
		return fmt.Errorf("%s is an IPv4 block in IPv6 form", s.Prefix)
	case s.Prefix != s.Prefix.Masked():
		return fmt.Errorf("%s is not masked", s.Prefix)
	}
	if err := CheckAddr(s.Gateway); err != nil {
		return fmt.Errorf("gateway of %s: %w", s.Prefix, err)
	}
	if s.Gateway.Is4() != s.Prefix.Addr().Is4() {
		return fmt.Errorf("gateway of %s: %s is of the other family", s.Prefix, s.Gateway)
	}
	return nil
}
