package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Tests of package nft that change a real kernel's tables.
const (
	allNFTTests = `^Test(.*Packets.*|ForbidInKernel|ForbiddenForATime|LinkLocal.*|Watch.*|TextAndNetlinkAgree|VerifySeesEveryChange|ApplyInKernel|FakeAndKernelAgree|LargeLoads|ManyRulesInOneBatch|HostileNamesLoad|InUserNamespace|SmallBuffers|LostReplies)$`
	ciNFTTests  = `^Test(.*Packets|ForbidInKernel|WatchTellsWhatOthersDo|TextAndNetlinkAgree|ApplyInKernel|FakeAndKernelAgree|HostileNamesLoad|LostReplies)$`
)

// Tests of package lab. Those about SCTP run a second time with packets made by
// hand, on a kernel that has SCTP of its own.
const (
	ciLabTests     = `^Test(EverybodyReachesEverybody|Refusals|AnswerNamesServerAndClient|BridgedPodsBypass.*)$`
	sctpPacketTest = `^Test(EverybodyReachesEverybody|Refusals|KernelSCTPIsSilenced)$`
)

// Tests of what guards pods beside the table: the connections, the pods' interfaces,
// and the node's settings. Of the last all run.
const (
	ciConntrackTests = `^Test(Flows|FlowsBothEnds|FilterIsTried|NATedFlow|Delete|RealFlows)$`
	ciSpoofTests     = `^Test(SetIsIncremental|DevicesComeAndGo|OwnTrafficPasses|ForeignSource|NeighborsAreNotDeceived)$`
)

// otherPacketTests are the packet tests of package testcases that are no cases.
const otherPacketTests = `|^TestLabAddresses$|^TestReject$|^TestChurn$|^TestRandomPackets$|^TestIPVS$`

// favourites are cases that differ most in the way that packets take, or in what
// of the kernel they need. They come first in the selection.
var favourites = []string{
	"hairpin", "both-ends-must-allow", "related-icmp-errors", "service-clusterip", "service-nodeport-other-node",
	"block-except", "block-to-the-top-of-ipv6", "named-port-ingress-two-numbers", "relabelled-peer",
	"end-port-inclusive", "names-of-253-characters",
}

var coversLine = regexp.MustCompile(`(?m)^covers: (.+)$`)

// selectCases chooses cases for a run that must be over in minutes: the favourites,
// all with SCTP, and then one for each row that none of them covers.
func selectCases(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	rows := map[string][]string{}
	var names, chosen []string
	for _, e := range entries {
		name := e.Name()
		text, err := os.ReadFile(filepath.Join(dir, name, "flows.txt"))
		if err != nil {
			return nil, err
		}
		names = append(names, name)
		if m := coversLine.FindSubmatch(text); m != nil {
			rows[name] = strings.Fields(string(m[1]))
		}
		if slices.Contains(favourites, name) || strings.Contains(string(text), "sctp/") {
			chosen = append(chosen, name)
		}
	}
	covered := map[string]bool{}
	for _, name := range chosen {
		for _, row := range rows[name] {
			covered[row] = true
		}
	}
	for _, name := range names {
		fresh := false
		for _, row := range rows[name] {
			fresh = fresh || !covered[row]
			covered[row] = true
		}
		if fresh {
			chosen = append(chosen, name)
		}
	}
	slices.Sort(chosen)
	return slices.Compact(chosen), nil
}
