package policy

import "net/netip"

// Elsewhere returns the "namespace/name" of a pod of another node that lists an
// address of the block, the first by name; found is false if there is none. It counts
// as all methods do: pods in a node's network and those that have ended have no
// address, and a pod that shares its address with another one still lists it. It
// looks at every pod, so ask it seldom.
func (x *Index) Elsewhere(block netip.Prefix) (pod string, found bool) {
	for _, ns := range x.namespaces {
		for _, p := range ns.pods {
			if p.local || found && p.fullName() >= pod {
				continue
			}
			for _, a := range p.claims {
				if block.Contains(a) {
					pod, found = p.fullName(), true
				}
			}
		}
	}
	return pod, found
}
