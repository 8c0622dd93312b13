package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/portcullis-netpol/portcullis/nft/spoof"
)

// spoofGuard is what the loop asks of spoof.Guard.
type spoofGuard interface {
	Update(ctx context.Context, bindings []spoof.Binding, indexes map[string]int) error
	Doubt()
	Bindings(context.Context) ([]spoof.Binding, error)
	Repairs() int
}

// senders sees to it that pods send with their own addresses only. It belongs to the
// loop; all methods of the nil *senders do nothing.
type senders struct {
	guard spoofGuard
	// devices returns the veths of the node with their indexes, and those that lead to
	// one address each: those of routed pods.
	devices     func() (indexes map[string]int, routes map[netip.Addr]string, err error)
	attachments *attachments
	health      *health
	log         *slog.Logger

	dirty bool
	known bool // remembered holds what an earlier agent has set
	// remembered are interfaces that were found once. On a bridge, only the CNI
	// plugin tells which is whose, and only once.
	remembered map[netip.Addr]string
}

// changed notes that pods or their interfaces came or went.
func (s *senders) changed() {
	if s != nil {
		s.dirty = true
	}
}

// disturbed notes that others may have changed the rules of interfaces.
func (s *senders) disturbed() {
	if s != nil {
		s.dirty = true
		s.guard.Doubt()
	}
}

// sync writes the rules of the interfaces of pods ("namespace/name" by address), if
// anything has changed, and reports whether others had changed them. After a failure it
// is worth calling again a moment later.
func (s *senders) sync(ctx context.Context, pods map[netip.Addr]string) (repaired bool) {
	if s == nil || !s.dirty {
		return false
	}
	before := s.guard.Repairs()
	bindings, indexes, err := s.bindings(ctx, pods)
	if err == nil {
		err = s.guard.Update(ctx, bindings, indexes)
	}
	if ctx.Err() != nil {
		return false
	}
	s.dirty = err != nil
	if err != nil {
		s.log.Error("pods may be able to send with addresses that are not theirs", "error", err)
		s.health.unhealthy(aboutSenders, err.Error())
		return false
	}
	s.health.unhealthy(aboutSenders, "")
	return s.guard.Repairs() > before
}

// bindings finds the interface of every pod of this node. Those whose interface
// nobody knows are left out.
func (s *senders) bindings(ctx context.Context, pods map[netip.Addr]string) (out []spoof.Binding, indexes map[string]int, err error) {
	var errs []error
	if !s.known {
		s.remembered = map[netip.Addr]string{}
		was, err := s.guard.Bindings(ctx)
		errs = append(errs, err)
		for _, b := range was {
			for _, a := range b.Addrs {
				s.remembered[a] = b.Device
			}
		}
		s.known = err == nil
	}
	indexes, routes, err := s.devices()
	if err != nil {
		return nil, nil, errors.Join(append(errs, fmt.Errorf("interfaces of the node: %w", err))...)
	}
	now := map[netip.Addr]string{}
	for a := range pods {
		if device := routes[a]; device != "" {
			now[a] = device
		} else if device := s.remembered[a]; device != "" {
			now[a] = device
		}
	}
	for _, at := range s.attachments.list {
		for _, a := range at.addrs {
			if at.device != "" {
				now[a] = at.device
			}
		}
	}
	// An interface can be gone before anybody says that its pod is.
	maps.DeleteFunc(now, func(_ netip.Addr, device string) bool { return indexes[device] == 0 })
	s.remembered = now
	byDevice := map[string][]netip.Addr{}
	for a, device := range now {
		byDevice[device] = append(byDevice[device], a)
	}
	for device, addrs := range byDevice {
		slices.SortFunc(addrs, netip.Addr.Compare)
		out = append(out, spoof.Binding{Device: device, Addrs: addrs})
	}
	slices.SortFunc(out, func(a, b spoof.Binding) int { return strings.Compare(a.Device, b.Device) })
	return out, indexes, errors.Join(errs...)
}
