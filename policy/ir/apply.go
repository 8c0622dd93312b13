package ir

import (
	"fmt"
	"net/netip"
	"slices"
)

// Apply returns the state that c leads to from s. It is the contract of Change,
// written down: an error means that c does not fit s.
func (s State) Apply(c Change) (State, error) {
	sets := map[PeerSetID]PeerSet{}
	for _, p := range s.PeerSets {
		sets[p.ID] = p
	}
	groups := map[GroupID]Group{}
	for _, g := range s.Groups {
		groups[g.ID] = g
	}
	ends := map[netip.Addr]Endpoint{}
	for _, e := range s.Endpoints {
		ends[e.Addr] = e
	}
	if err := applyPeerSets(sets, c); err != nil {
		return State{}, err
	}
	for _, id := range c.RemoveGroups {
		if _, ok := groups[id]; !ok {
			return State{}, fmt.Errorf("group %s is removed but is not there", id)
		}
		delete(groups, id)
	}
	for _, g := range c.AddGroups {
		if _, ok := groups[g.ID]; ok {
			return State{}, fmt.Errorf("group %s is added but is there already", g.ID)
		}
		groups[g.ID] = g
	}
	for _, e := range c.Endpoints {
		if err := applyEndpoint(ends, e); err != nil {
			return State{}, err
		}
	}
	var n State
	for _, p := range sets {
		n.PeerSets = append(n.PeerSets, p)
	}
	for _, g := range groups {
		n.Groups = append(n.Groups, g)
	}
	for _, e := range ends {
		n.Endpoints = append(n.Endpoints, e)
	}
	slices.SortFunc(n.PeerSets, ComparePeerSets)
	slices.SortFunc(n.Groups, CompareGroups)
	slices.SortFunc(n.Endpoints, CompareEndpoints)
	return n, nil
}

func applyPeerSets(sets map[PeerSetID]PeerSet, c Change) error {
	for _, id := range c.RemovePeerSets {
		if _, ok := sets[id]; !ok {
			return fmt.Errorf("peer set %s is removed but is not there", id)
		}
		delete(sets, id)
	}
	for _, pc := range c.PeerSets {
		p, ok := sets[pc.ID]
		if !ok {
			return fmt.Errorf("peer set %s changes but is not there", pc.ID)
		}
		addrs := map[netip.Addr]bool{}
		for _, a := range p.Addrs {
			addrs[a] = true
		}
		for _, a := range pc.Leave {
			if !addrs[a] {
				return fmt.Errorf("%s leaves peer set %s but is not in it", a, pc.ID)
			}
			delete(addrs, a)
		}
		for _, a := range pc.Join {
			if addrs[a] {
				return fmt.Errorf("%s joins peer set %s but is in it", a, pc.ID)
			}
			addrs[a] = true
		}
		p.Addrs = nil
		for a := range addrs {
			p.Addrs = append(p.Addrs, a)
		}
		slices.SortFunc(p.Addrs, netip.Addr.Compare)
		sets[pc.ID] = p
	}
	for _, p := range c.AddPeerSets {
		if _, ok := sets[p.ID]; ok {
			return fmt.Errorf("peer set %s is added but is there already", p.ID)
		}
		sets[p.ID] = p
	}
	return nil
}

func applyEndpoint(ends map[netip.Addr]Endpoint, c EndpointChange) error {
	if c.Old != nil {
		if have, ok := ends[c.Old.Addr]; !ok || have != *c.Old {
			return fmt.Errorf("endpoint %s changes from %+v but is %+v", c.Old.Addr, *c.Old, have)
		}
		delete(ends, c.Old.Addr)
	}
	if c.New != nil {
		if _, ok := ends[c.New.Addr]; ok {
			return fmt.Errorf("endpoint %s is added but is there already", c.New.Addr)
		}
		ends[c.New.Addr] = *c.New
	}
	return nil
}
