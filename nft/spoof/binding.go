package spoof

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"
)

// Binding says which addresses may be sent from behind a device.
type Binding struct {
	// Device is the name of the node's end of the pod's veth.
	Device string
	// Addrs are the pod's addresses, of either family and in any order. A pod
	// without any can announce itself to its link and no more.
	Addrs []netip.Addr
}

// maxAddrs bounds the rules of a device, which a packet may have to walk, and with
// them the replies to a batch.
const maxAddrs = 100

// normal returns the binding with its addresses sorted and without repetitions,
// so that equal bindings have equal rules.
func (b Binding) normal() (Binding, error) {
	if err := checkDevice(b.Device); err != nil {
		return Binding{}, err
	}
	out := Binding{Device: b.Device}
	for _, a := range b.Addrs {
		a = a.Unmap()
		switch {
		case !a.IsValid() || a.Zone() != "":
			return Binding{}, fmt.Errorf("device %s: %q is no address of a pod", b.Device, a)
		case a.IsUnspecified() || a.IsMulticast() || a.IsLoopback():
			return Binding{}, fmt.Errorf("device %s: nobody sends from %v", b.Device, a)
		}
		out.Addrs = append(out.Addrs, a)
	}
	slices.SortFunc(out.Addrs, netip.Addr.Compare)
	out.Addrs = slices.Compact(out.Addrs)
	if len(out.Addrs) > maxAddrs {
		return Binding{}, fmt.Errorf("device %s: %d addresses, at most %d are possible", b.Device, len(out.Addrs), maxAddrs)
	}
	return out, nil
}

// checkDevice accepts what Linux accepts as the name of a device.
func checkDevice(name string) error {
	if name == "" || name == "." || name == ".." || len(name) >= unix.IFNAMSIZ || strings.ContainsFunc(name, func(r rune) bool {
		return r == '/' || r == ':' || r == 0 || unicode.IsSpace(r)
	}) {
		return fmt.Errorf("%q is no name of a device", name)
	}
	return nil
}

// normalize returns the bindings that make sense, and an error for the others,
// whose devices it names, so that they can be left as they are.
func normalize(bindings []Binding) (good []Binding, bad map[string]bool, err error) {
	var errs []error
	seen := map[string]bool{}
	bad = map[string]bool{}
	for _, b := range bindings {
		n, err := b.normal()
		if err == nil && seen[b.Device] {
			err = fmt.Errorf("device %s: bound twice", b.Device)
		}
		seen[b.Device] = true
		if err != nil {
			errs = append(errs, err)
			bad[b.Device] = true
			continue
		}
		good = append(good, n)
	}
	good = slices.DeleteFunc(good, func(b Binding) bool { return bad[b.Device] })
	slices.SortFunc(good, func(a, b Binding) int { return strings.Compare(a.Device, b.Device) })
	return good, bad, errors.Join(errs...)
}

// of returns the addresses of a family.
func (b Binding) of(v4 bool) (out []netip.Addr) {
	for _, a := range b.Addrs {
		if a.Is4() == v4 {
			out = append(out, a)
		}
	}
	return out
}
