package agent

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/portcullis-netpol/portcullis/agent/node"
	"github.com/portcullis-netpol/portcullis/nft"
)

type fakeChecker struct {
	found   []node.Condition
	bridged bool
}

func (c *fakeChecker) Check(context.Context, node.Local) (node.Report, error) {
	return node.Report{Conditions: c.found, Bridged: c.bridged}, nil
}

// TestConditions makes the agent not ready while a setting lets packets past the
// rules, says so once, and no longer when it is put right.
func TestConditions(t *testing.T) {
	book, logger := newLogbook()
	h := newHealth(clocktesting.NewFakeClock(time.Unix(1e9, 0)))
	start := len(h.obstacles())
	ipvs := node.Condition{Reason: node.IPVSProxy, Message: "services go round"}
	checker := &fakeChecker{found: []node.Condition{ipvs, {Reason: node.BridgeNetfilterOff, Message: "was off", Repaired: true}}}
	c := &conditions{checker: checker, health: h, log: logger}
	events := record.NewFakeRecorder(10)
	w := newWarnings(events, "node-1")
	c.inspect(t.Context(), node.Local{}, w)
	c.inspect(t.Context(), node.Local{}, w)
	require.Contains(t, h.obstacles(), "IPVSProxy: services go round")
	require.Len(t, h.obstacles(), start+1)
	require.Equal(t, 1, book.count("services go round"))
	require.Equal(t, 2, book.count("was off"))
	require.ElementsMatch(t, []string{
		"Warning IPVSProxy services go round.", "Warning BridgeNetfilterOff was off.", "Warning BridgeNetfilterOff was off.",
	}, []string{<-events.Events, <-events.Events, <-events.Events})
	checker.found = nil
	c.inspect(t.Context(), node.Local{}, nil)
	require.Len(t, h.obstacles(), start)
}

// TestBridgedPods lays the table out for bridged pods when there are some, once.
func TestBridgedPods(t *testing.T) {
	l := startLoop(t)
	checker := &fakeChecker{}
	inLoop(t, l, func(l *loop) bool {
		l.conditions = &conditions{checker: checker, health: l.health, log: l.log}
		l.inspect = l.clock.Tick(inspectEvery)
		return true
	})
	l.queue.put(batch{synced: true})
	l.rules.answer(t, "takeover", nil)
	l.clock.Step(inspectEvery)
	l.rules.none(t)
	inLoop(t, l, func(*loop) bool { checker.bridged = true; return true })
	l.clock.Step(inspectEvery)
	c := l.rules.next(t, "takeover")
	require.True(t, l.rules.bridged)
	c.reply <- nil
	l.clock.Step(inspectEvery)
	l.pod("a")
	l.rules.answer(t, "apply", nil) // and not another takeover
}

// TestNodeEvents writes an Event about the Node where the rules had to be repaired, and
// counts in it how often.
func TestNodeEvents(t *testing.T) {
	kernel := nft.NewFake()
	client := fake.NewClientset(testNode("node-1"))
	agent := startAgent(t, Config{Source: Kubernetes(client), Kernel: kernel})
	agent.log.wait(t, "table in force")
	for i := range int32(2) {
		for table := range kernel.Snapshot() {
			require.NoError(t, kernel.Disturb(nft.Batch{Table: table, Ops: []nft.Op{nft.DelTable{}}}))
		}
		eventually(t, "an Event", func() bool {
			list, err := client.CoreV1().Events("default").List(t.Context(), metav1.ListOptions{})
			require.NoError(t, err)
			if len(list.Items) != 1 || list.Items[0].Count != i+1 {
				return false
			}
			e := list.Items[0]
			require.Equal(t, []string{"Node", "node-1", "node-1", "RulesRepaired"},
				[]string{e.InvolvedObject.Kind, e.InvolvedObject.Name, string(e.InvolvedObject.UID), e.Reason})
			return true
		})
	}
}
