package nft

import (
	"flag"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

var update = flag.Bool("update", false, "write the golden files")

func TestText(t *testing.T) {
	for file, tc := range map[string]struct {
		cfg Config
		s   ir.State
	}{
		"testdata/empty.nft":      {Config{}, ir.State{}},
		"testdata/shop.nft":       {Config{Deny: DenyReject, PodToNode: true}, shop()},
		"testdata/full.nft":       {Config{PodToNode: true, Midstream: true, Bridged: true, PodCIDRs: podBlocks, LogGroup: 4040}, onTrialToo(shop())},
		"testdata/forbidding.nft": {Config{PodToNode: true, Midstream: true, Bridged: true}, ir.State{}},
	} {
		t.Run(file, func(t *testing.T) {
			table, err := Build(tc.cfg, "portcullis-a", tc.s)
			require.NoError(t, err)
			if file == "testdata/forbidding.nft" {
				table.Chains = append(table.Chains, CutChains(tc.cfg)...)
				table.sort()
			}
			if *update {
				require.NoError(t, os.MkdirAll("testdata", 0o755))
				require.NoError(t, os.WriteFile(file, []byte(Text(table)), 0o644))
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, string(want), Text(table))
		})
	}
}

// onTrialToo gives the pod that no policy of shop selects a group on trial.
func onTrialToo(s ir.State) ir.State {
	g := onTrial(np(ir.Egress, "ge-trial", []string{"shop/trial"}, rule(ir.UDP, 53, 53, "*")))
	s.Endpoints[2].Egress = g.ID
	s.Groups = append(s.Groups, g)
	return sorted(s)
}

// hostile has names as long and as strange as they come.
func hostile() ir.State {
	long := strings.Repeat("n", 63) + "/" + strings.Repeat("p", 253)
	odd := "x\" ; flush ruleset #\n\\ é"
	s := ir.State{}
	for i, id := range []string{"gi-" + strings.Repeat("a", 26), "gi-b", strings.Repeat("g", 200), "ge", "drop", "UPPER", "a_b", "a b", ""} {
		g := np(ir.Ingress, id, []string{long, long + "2", odd}, rule(ir.TCP, uint16(i+1), uint16(i+1), odd+id), rule(ir.TCP, 100, 200, odd+id), rule(ir.UDP, 100, 200, odd+id))
		if i%2 == 1 {
			g.Policies = []string{odd}
		}
		if id == "" {
			g.ID = "\x00"
		}
		s.Groups = append(s.Groups, g)
		s.PeerSets = append(s.PeerSets, ir.PeerSet{ID: ir.PeerSetID(odd + id), About: strings.Repeat(odd, 20), Selects: true})
		s.Endpoints = append(s.Endpoints, ir.Endpoint{Addr: addr("10.0.0.1"), Ingress: g.ID})
		for range i {
			s.Endpoints[i].Addr = s.Endpoints[i].Addr.Next()
		}
	}
	return sorted(s)
}

func TestNamesAreBoundedAndDistinct(t *testing.T) {
	table, err := Build(Config{}, "portcullis-a", hostile())
	require.NoError(t, err)
	fits := regexp.MustCompile(`^[a-z][A-Za-z0-9/_.-]{0,127}$`)
	sets, chains := map[string]bool{}, map[string]bool{}
	for _, s := range append(table.Sets, table.Maps...) {
		require.Regexp(t, fits, s.Name)
		require.False(t, sets[s.Name], s.Name)
		sets[s.Name] = true
	}
	for _, c := range table.Chains {
		require.Regexp(t, fits, c.Name)
		require.False(t, chains[c.Name], c.Name)
		chains[c.Name] = true
		for _, r := range c.Rules {
			require.LessOrEqual(t, len(r.Comment), 127)
			require.NotRegexp(t, `[^ -~]|["\\]`, r.Comment)
		}
	}
	require.Len(t, chains, 5+2+4+2*9)
}

// TestHostileNamesLoad gives them to nft and to the kernel.
func TestHostileNamesLoad(t *testing.T) {
	table, err := Build(Config{}, "portcullis-a", hostile())
	require.NoError(t, err)
	ns := newNetNS(t)
	runNFT(t, ns, Text(table), "-f", "-")
	e := NewEnforcer(Config{}, openTestKernel(t, ns))
	have, _, err := e.kernel.Read(t.Context(), "portcullis-a")
	require.NoError(t, err)
	require.Empty(t, Diff(table, have))
	require.NoError(t, e.Takeover(t.Context(), hostile()))
	runNFT(t, newNetNS(t), runNFT(t, ns, "", "list", "ruleset"), "-f", "-")
}

func TestRanges(t *testing.T) {
	for text, ends := range map[string][2]string{
		"0.0.0.0/0":          {"0.0.0.0", "255.255.255.255"},
		"10.0.0.0/9":         {"10.0.0.0", "10.127.255.255"},
		"255.255.255.254/31": {"255.255.255.254", "255.255.255.255"},
		"192.0.2.1/32":       {"192.0.2.1", "192.0.2.1"},
		"::/0":               {"::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
		"2001:db8::/33":      {"2001:db8::", "2001:db8:7fff:ffff:ffff:ffff:ffff:ffff"},
	} {
		e := blockElement(block(text))
		require.Equal(t, ends, [2]string{keyAddr(e.Key).String(), keyAddr(e.Last).String()}, text)
		if ends[0] != ends[1] {
			require.Equal(t, text, TypeAddr4.rangeText(e.Key, e.Last))
		}
	}
	require.Equal(t, "10.0.0.1-10.0.0.2", TypeAddr4.rangeText(addrKey(addr("10.0.0.1")), addrKey(addr("10.0.0.2"))))
}

// A block without its excepts is many prefixes; the set holds the few ranges that
// they make up, to the last address of the family.
func TestAdjacentBlocksBecomeOneRange(t *testing.T) {
	sets, err := peerSets(ir.PeerSet{ID: "p-x", Blocks: []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/9"), netip.MustParsePrefix("10.128.0.0/10"),
		netip.MustParsePrefix("192.0.0.0/2"),
		netip.MustParsePrefix("8000::/2"), netip.MustParsePrefix("c000::/2"),
	}})
	require.NoError(t, err)
	require.Len(t, sets, 2)
	text := func(s *Set) (out []string) {
		for _, e := range s.Elements {
			out = append(out, s.elementText(e))
		}
		return out
	}
	require.Equal(t, []string{"10.0.0.0-10.191.255.255", "192.0.0.0/2"}, text(sets[0]))
	require.Equal(t, []string{"8000::/1"}, text(sets[1]))
}
