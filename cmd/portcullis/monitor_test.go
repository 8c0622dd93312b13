package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/portcullis-netpol/portcullis/agent/admin"
)

// denied are packets that two nodes have seen, in no order.
func denied() map[string][]admin.Denial {
	at := func(seconds int) time.Time { return noon.Add(-time.Duration(seconds) * time.Second) }
	frontend, db := podEnd("shop/frontend", "10.244.1.2", "app", "frontend"), podEnd("shop/db", "10.244.1.4", "app", "db")
	outside := admin.End{Addr: netip.MustParseAddr("2001:db8::7")}
	return map[string][]admin.Denial{
		"node-1": {
			{Time: at(300), Node: "node-1", Reason: admin.ReasonPolicy, Direction: "ingress", Source: frontend, Destination: db, Protocol: "tcp", SourcePort: 40000, Port: 5432,
				Policies: []string{"shop/db", "shop/default-deny"}, Closest: &admin.Closest{Policy: "shop/db", Rule: "spec.ingress[0]", Missing: "port tcp/5432: it allows tcp/3306"}},
			{Time: at(20), Node: "node-1", Reason: admin.ReasonAudit, Direction: "egress", Source: podEnd("lab/web", "10.244.1.9"), Destination: outside, Protocol: "udp", SourcePort: 5, Port: 53, Policies: []string{"lab/out"}},
		},
		"node-2": {
			{Time: at(100), Node: "node-2", Reason: admin.ReasonQuarantine, Direction: "ingress", Source: outside, Destination: admin.End{Addr: netip.MustParseAddr("fd00::5")}, Protocol: "icmpv6"},
			{Time: at(10), Node: "lies\x1b[2J", Reason: admin.ReasonCut, Source: db, Destination: podEnd("evil/\x1b]0;x\x07\u202e", "10.244.1.7"), Protocol: "132\n\x7f😀", SourcePort: 1, Port: 2},
		},
	}
}

func monitored(t *testing.T) (agents map[string]*fakeAgent, hangUp map[string]func()) {
	t.Helper()
	agents, hangUp = map[string]*fakeAgent{"node-1": {}, "node-2": {}, "node-3": nil}, map[string]func(){}
	for node, list := range denied() {
		hangUp[node] = agents[node].listen(t)
		for _, d := range list {
			agents[node].feed.Add(d)
		}
	}
	return agents, hangUp
}

// TestMonitorRecent shows what the agents remember, in the order of time.
func TestMonitorRecent(t *testing.T) {
	agents, _ := monitored(t)
	var all strings.Builder
	for _, args := range []string{
		"", "-n lab", "-n lab -n shop", "--pod shop/frontend", "--direction ingress", "--reason cut", "--port 53", "--port tcp/53", "--port icmp", "--port udp/53 --port 5432", "--since 30s", "-o json",
	} {
		a, stdout, stderr, cluster := clusterOf(t, agents)
		code := a.run(t.Context(), append([]string{"monitor", cluster, "--follow=false"}, strings.Fields(args)...))
		require.Equal(t, exitOK, code)
		require.Equal(t, "portcullis: warning: node node-3: pod agent-node-3: container not found\\x1b[2J\nportcullis: warning: node node-9: no pod of the agent runs here\n",
			strings.Join(slices.Sorted(strings.Lines(stderr.String())), ""))
		fmt.Fprintf(&all, "$ portcullis monitor --follow=false %s\n%s\n", args, stdout)
	}
	requirePlain(t, all.String())
	golden(t, "agents/monitor.txt", all.String())

	a, stdout, _ := testApp()
	a.now = func() time.Time { return noon }
	require.Equal(t, exitOK, a.run(t.Context(), []string{"monitor", "--agent=" + agents["node-1"].socket, "--follow=false", "--port", "53"}))
	require.Equal(t, "11:59:40.000 node-1 egress would be denied lab/web (10.244.1.9:5) -> [2001:db8::7]:53 udp/53: by lab/out (audit mode)\n", stdout.String())
}

// TestMonitorFollow goes on when one agent ends, comes back to it without showing anything
// twice, and ends with 0 by a signal.
func TestMonitorFollow(t *testing.T) {
	agents, hangUp := monitored(t)
	a, stdout, stderr, cluster := clusterOf(t, agents)
	clock := clocktesting.NewFakeClock(noon)
	a.clock = clock
	stop := startApp(a, "monitor", cluster, "-o", "json")
	stdout.wait(t, "5432")
	stdout.wait(t, `"cut"`)
	hangUp["node-2"]()
	stderr.wait(t, "node node-2: portcullis: the agent went away")
	d := denied()["node-1"][0]
	d.Port = 5433
	agents["node-1"].feed.Add(d)
	stdout.wait(t, "5433")
	agents["node-1"].feed.Lose(7)
	stdout.wait(t, `{"node":"node-1","lost":7}`)

	d = denied()["node-2"][0]
	d.Protocol = "missed"
	agents["node-2"].feed.Add(d)
	for range 2 {
		hangUp["node-2"] = agents["node-2"].listen(t)
		stepUntil(t, clock, func() bool { return strings.Contains(stdout.String(), d.Protocol) })
		stepUntil(t, clock, func() bool {
			return strings.Count(stderr.String(), "node node-2: its agent") == strings.Count(stderr.String(), "node node-2: portcullis:")
		})
		hangUp["node-2"]()
		d.Protocol = "missed too"
		agents["node-2"].feed.Add(d)
	}
	require.Equal(t, exitOK, stop())
	lines := map[string]bool{}
	for line := range strings.Lines(stdout.String()) {
		require.True(t, json.Valid([]byte(line)), line)
		require.False(t, lines[line], "twice: %s", line)
		lines[line] = true
	}
	require.Len(t, lines, 4+1+1+1+1)
	require.Equal(t, 1, strings.Count(stderr.String(), "node node-3"), stderr.String())
	require.Equal(t, 1, strings.Count(stderr.String(), "node node-9"), stderr.String())
}

// stepUntil lets a fake time go by until something has happened.
func stepUntil(t *testing.T, clock *clocktesting.FakeClock, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(time.Millisecond) {
		clock.Step(time.Second)
		if time.Now().After(deadline) {
			t.Fatal("it never happened")
		}
	}
}

// TestMonitorNobody ends if no agent has ever answered.
func TestMonitorNobody(t *testing.T) {
	a, _, stderr, cluster := clusterOf(t, map[string]*fakeAgent{"node-1": nil})
	require.Equal(t, exitFailure, a.run(t.Context(), []string{"monitor", cluster}))
	require.Contains(t, stderr.String(), "no agent is left")
	require.Contains(t, stderr.String(), "node node-1: pod agent-node-1")
}

// TestMonitorRestart waits for the agent of this node when it restarts.
func TestMonitorRestart(t *testing.T) {
	agents, hangUp := monitored(t)
	agent := agents["node-1"]
	a, stdout, stderr := testApp()
	clock := clocktesting.NewFakeClock(noon)
	a.clock, a.now = clock, func() time.Time { return noon }
	stop := startApp(a, "monitor", "--agent="+agent.socket)
	stdout.wait(t, "5432")
	agent.feed.Lose(8)
	stderr.wait(t, "8 denied packets are not shown")
	agent.feed.Lose(1)
	stderr.wait(t, "1 denied packet is not shown")
	hangUp["node-1"]()
	stderr.wait(t, "the agent went away: unexpected EOF; trying again")
	for range 3 { // attempts to reach nobody
		stepUntil(t, clock, clock.HasWaiters)
	}
	d := denied()["node-1"][0]
	d.Port = 5433
	agent.feed.Add(d)
	agent.listen(t)
	stepUntil(t, clock, func() bool { return strings.Contains(stdout.String(), "5433") })
	require.Equal(t, exitOK, stop())
	require.Equal(t, 3, strings.Count(stdout.String(), "\n"))
	require.Equal(t, 1, strings.Count(stderr.String(), "trying again"))
	require.Equal(t, 1, strings.Count(stderr.String(), "the agent answers again"))

	hangUp["node-2"]()
	code, _, _ := run(t, "monitor", "--agent="+agents["node-2"].socket)
	require.Equal(t, exitInput, code, "it was not there to begin with")
}

// TestMonitorLeash ends when stdin does, as in a pod that nobody listens to any more.
func TestMonitorLeash(t *testing.T) {
	agent := &fakeAgent{}
	agent.listen(t)
	a, _, _ := testApp() // its stdin has ended
	require.Equal(t, exitOK, a.run(t.Context(), []string{"monitor", "--agent=" + agent.socket, "--until-stdin-ends"}))
}

// TestAudit sums up over nodes; pods of one workload count as one.
func TestAudit(t *testing.T) {
	row := func(source, destination admin.End, port uint16, count uint64, ago time.Duration, policies ...string) admin.AuditRow {
		return admin.AuditRow{Direction: "ingress", Source: source, Destination: destination, Protocol: "tcp", Port: port, Policies: policies, Count: count,
			First: noon.Add(-time.Hour), Last: noon.Add(-ago), Closest: &admin.Closest{Policy: policies[0], Rule: "spec.ingress[0]", Missing: "port tcp/80: it allows tcp/443"}}
	}
	web := func(hash, addr string) admin.End {
		return podEnd("shop/web-"+hash+"-x", addr, "app", "web", "pod-template-hash", hash)
	}
	db, outside := podEnd("shop/db-0", "10.244.1.4", "app", "db"), admin.End{Addr: netip.MustParseAddr("192.0.2.1")}
	none := row(outside, db, 22, 1, time.Minute, "shop/a", "shop/b")
	none.Closest = nil
	agents := map[string]*fakeAgent{
		"node-1": {audit: admin.Audit{Node: "node-1", Since: noon.Add(-3 * time.Hour), Packets: 60, Logged: 16, Forgotten: 1, Rows: []admin.AuditRow{
			row(web("1", "10.244.1.2"), db, 80, 10, time.Hour, "shop/a"), row(outside, db, 80, 4, time.Minute, "shop/a"), none}}},
		"node-2": {audit: admin.Audit{Node: "node-2", Since: noon.Add(-2 * time.Hour), Packets: 5, Logged: 5, Rows: []admin.AuditRow{
			row(web("2", "10.244.2.2"), db, 80, 4, time.Second, "shop/a"), row(podEnd("lab/\x1b[2J", "10.244.2.9"), db, 80, 1, time.Second, "lab/c\x07")}}},
		"node-3": nil,
	}
	agents["node-1"].listen(t)
	agents["node-2"].listen(t)
	quiet := &fakeAgent{audit: admin.Audit{Node: "node-1", Since: noon.Add(-time.Minute)}}
	quiet.listen(t)
	var all strings.Builder
	ask := func(agents map[string]*fakeAgent, args string) {
		a, stdout, stderr, cluster := clusterOf(t, agents)
		code := a.run(t.Context(), append([]string{"audit", cluster}, strings.Fields(args)...))
		fmt.Fprintf(&all, "$ portcullis audit %s\n%s%sexit code %d\n\n", args, stderr, stdout, code)
	}
	ask(agents, "")
	ask(agents, "-n lab --node node-2")
	ask(agents, "--policy shop/b")
	ask(agents, "--policy shop/nothing --node node-2")
	ask(agents, "--node node-3")
	ask(agents, "-o json")
	ask(map[string]*fakeAgent{"node-1": quiet}, "--node node-1")
	quiet.audit.Packets = 1
	ask(map[string]*fakeAgent{"node-1": quiet}, "--node node-1")
	quiet.audit.Packets = 0
	ask(map[string]*fakeAgent{"node-1": quiet}, "") // not all have answered
	requirePlain(t, all.String())
	golden(t, "agents/audit.txt", all.String())
	code, stdout, _ := run(t, "audit", "--agent="+agents["node-1"].socket, "-o", "json")
	require.Equal(t, exitFailure, code)
	require.Contains(t, stdout, `"forgotten": 1`)
}
