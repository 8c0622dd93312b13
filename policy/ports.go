package policy

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// allow is one thing that a policy allows: the peers, on a range of ports.
type allow struct {
	// protocol ir.AnyProtocol allows everything; first and last are 0 then.
	protocol    ir.Protocol
	first, last uint16
	peers       *peers
}

// segment is a range of ports for which the same peers are allowed.
type segment struct {
	protocol    ir.Protocol
	first, last uint16
	peers       *peers
	id          ir.PeerSetID
}

// splitPorts turns allows, which overlap as they like, into segments of which
// the first that matches a packet's protocol and port decides alone: disjoint,
// each with the peers of everything that covers it, sorted, and one for every
// protocol (if any) at the end. Segments that say what that one says are left
// out, adjacent ones that say the same are one.
func splitPorts(allows []allow) []segment {
	all := segment{protocol: ir.AnyProtocol}
	var wide []*peers
	byProtocol := map[ir.Protocol][]allow{}
	for _, a := range allows {
		if a.protocol == ir.AnyProtocol {
			wide = append(wide, a.peers)
		} else {
			byProtocol[a.protocol] = append(byProtocol[a.protocol], a)
		}
	}
	u := union(wide)
	all.peers, all.id = &u, u.id()
	var out []segment
	for _, p := range []ir.Protocol{ir.TCP, ir.UDP, ir.SCTP} {
		out = append(out, splitProtocol(p, byProtocol[p], all)...)
	}
	if !all.peers.empty() {
		out = append(out, all)
	}
	return out
}

// cut is a port at which an allow begins or behind which it ends.
type cut struct {
	at    int // up to 65536
	index int
	begin bool
}

func splitProtocol(protocol ir.Protocol, allows []allow, all segment) []segment {
	cuts := make([]cut, 0, 2*len(allows))
	for i, a := range allows {
		cuts = append(cuts, cut{int(a.first), i, true}, cut{int(a.last) + 1, i, false})
	}
	slices.SortFunc(cuts, func(a, b cut) int { return cmp.Compare(a.at, b.at) })
	// Many ports often have the same few peers: their union is made once.
	unions := map[string]segment{}
	out := make([]segment, 0, len(allows))
	var active []int // sorted
	for i, c := range cuts {
		j, _ := slices.BinarySearch(active, c.index)
		if c.begin {
			active = slices.Insert(active, j, c.index)
		} else {
			active = slices.Delete(active, j, j+1)
		}
		if len(active) == 0 || cuts[i+1].at == c.at {
			continue
		}
		var s segment
		if only := allows[active[0]].peers; len(active) == 1 && all.peers.empty() && only.name != "" {
			s.peers, s.id = only, only.name
		} else {
			key := signature(active)
			known, ok := unions[key]
			if !ok {
				list := []*peers{all.peers}
				for _, k := range active {
					list = append(list, allows[k].peers)
				}
				u := union(list)
				known.peers, known.id = &u, u.id()
				unions[key] = known
			}
			s = known
		}
		if s.id == all.id { // also where neither has any peers
			continue
		}
		s.protocol, s.first, s.last = protocol, uint16(c.at), uint16(cuts[i+1].at-1)
		if n := len(out); n > 0 && out[n-1].id == s.id && int(out[n-1].last)+1 == c.at {
			out[n-1].last = s.last
			continue
		}
		out = append(out, s)
	}
	return out
}

func signature(active []int) string {
	var b strings.Builder
	for _, i := range active {
		b.WriteString(strconv.Itoa(i))
		b.WriteByte(',')
	}
	return b.String()
}
