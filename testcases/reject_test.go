package testcases

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/testcases/lab"
)

// TestReject plays cases with an enforcer that says no aloud: what is denied is
// refused, by a TCP reset or an ICMP error, and everything else is as ever.
func TestReject(t *testing.T) {
	for _, name := range []string{"default-deny-all", "both-ends-must-allow", "pod-to-own-node", "hairpin"} {
		for _, topo := range topologies {
			t.Run(name+"/"+topo.String(), func(t *testing.T) {
				t.Parallel()
				lab.Require(t, needs...)
				c, err := readCase("cases/" + name)
				require.NoError(t, err)
				cfg := tableConfig
				cfg.Deny = nft.DenyReject
				s := newSite(t, topo, cfg)
				play(t, c, func(t *testing.T, st stage) {
					s.populate(st.cluster)
					s.enforce(st.Events)
					s.reject(st)
				})
			})
		}
	}
}

// reject sends the checks and asks for a refusal of what is denied.
func (s *site) reject(st stage) {
	s.t.Helper()
	var probes []lab.Probe
	for _, ch := range st.Checks {
		p, err := s.probe(st.cluster, ch)
		require.NoError(s.t, err)
		// There is something to wait for, with two exceptions.
		p.Deny = !ch.Want.allowed() && s.silent(ch)
		probes = append(probes, p)
	}
	for i, r := range s.Probe(s.t.Context(), probes, timing) {
		ch := st.Checks[i]
		assert.Equal(s.t, ch.Want.allowed(), r.OK, "%v: %v", ch, r.Err)
		if !ch.Want.allowed() && !s.silent(ch) {
			assert.True(s.t, r.Refused, "%v: want a refusal: %v", ch, r.Err)
		}
	}
}

// silent lists the refusals that do not reach who should hear them. SCTP probes
// made of packets have raw sockets, which are told of no ICMP error. And a reset
// for a bridged packet is sent out by the kernel (nf_send_reset) past its
// connection tracking, with the pod's address instead of the Service's.
func (s *site) silent(ch check) bool {
	bridged := s.Config().Topology == lab.Bridged
	packets := s.Config().SCTP == lab.SCTPPackets
	return ch.Port.Protocol == "sctp" && packets || bridged && ch.Port.Protocol == "tcp" && ch.Dst.Service != nil
}
