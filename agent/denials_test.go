package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/portcullis-netpol/portcullis/agent/admin"
	"github.com/portcullis-netpol/portcullis/nft/nflog"
	"github.com/portcullis-netpol/portcullis/policy"
	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// fakeLog is a packetLog whose packets a test sends.
type fakeLog struct {
	packets chan nflog.Packet
	failed  chan error
}

func newFakeLog() *fakeLog { return &fakeLog{make(chan nflog.Packet), make(chan error)} }

func (f *fakeLog) Receive(ctx context.Context) (nflog.Packet, error) {
	select {
	case p := <-f.packets:
		return p, nil
	case err := <-f.failed:
		return nflog.Packet{}, err
	case <-ctx.Done():
		return nflog.Packet{}, ctx.Err()
	}
}

func (f *fakeLog) Close() error { return nil }

// denialTest has denials of a loop, and what they tell.
type denialTest struct {
	*loopTest
	*denials
	log *fakeLog
}

// startDenials runs a loop whose index knows the shop's pods, and what names packets.
func startDenials(t *testing.T) *denialTest {
	l := startLoop(t, func(x *fakeIndex) {
		web, db := shopPod("web", "node-1", webAddr), shopPod("db", "node-2", dbAddr)
		web.Labels["evil"] = "\x1b[31m\nlevel=ERROR"
		x.pods = map[netip.Addr]*corev1.Pod{netip.MustParseAddr(webAddr): web, netip.MustParseAddr(dbAddr): db}
		x.namespaces = map[string]*corev1.Namespace{"shop": {ObjectMeta: metav1.ObjectMeta{Name: "shop"}}}
		x.verdict = func(_, dst netip.Addr, _ ir.Protocol, _ uint16) (v policy.Verdict) {
			if dst == netip.MustParseAddr(webAddr) {
				v.Ingress.Policies = []string{"shop/web", "shop/web-2"}
			}
			return v
		}
	})
	l.queue.put(batch{events: []event{{key{policyKind, "shop", "web"}, allowFrom("api")}}, synced: true})
	l.rules.answer(t, "takeover", nil)
	d := &denialTest{loopTest: l, log: newFakeLog()}
	d.denials = &denials{
		node: "node-1", packets: d.log, visits: visits{l.loop.visits, nil}, feed: admin.NewFeed(), audits: newAudits(l.clock.Now()),
		lines: newDenialLines(l.loop.log, l.clock), meters: newMeters(l.clock, "", l.queue, l.health), log: l.loop.log,
		clock: l.clock, waiting: make(chan nflog.Packet, maxWaiting),
	}
	return d
}

// start runs both of its goroutines.
func (d *denialTest) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- d.receive(ctx) }()
	go func() { ended <- d.name(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, errors.Join(<-ended, <-ended))
	})
}

func deniedPacket(prefix, src, dst string, port uint16) nflog.Packet {
	return nflog.Packet{Time: time.Unix(1e9, 0), Prefix: prefix, Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), Protocol: 6, SrcPort: 40000, DstPort: port}
}

// named returns the denial that a packet becomes.
func (d *denialTest) named(t *testing.T, p nflog.Packet) admin.Denial {
	t.Helper()
	before := len(d.feed.Recent())
	d.tell(t.Context(), []nflog.Packet{p})
	require.Len(t, d.feed.Recent(), before+1)
	return d.feed.Recent()[before]
}

// TestDenialHasNames has the pods and policies of packets of each kind.
func TestDenialHasNames(t *testing.T) {
	d := startDenials(t)
	got := d.named(t, deniedPacket("portcullis policy ingress", dbAddr, webAddr, 80))
	got.Closest = nil // it is tested where policies are real
	require.Equal(t, admin.Denial{
		Time: time.Unix(1e9, 0), Node: "node-1", Reason: admin.ReasonPolicy, Direction: "ingress",
		Source:      admin.End{Addr: netip.MustParseAddr(dbAddr), Pod: "shop/db", Labels: map[string]string{"app": "db"}},
		Destination: admin.End{Addr: netip.MustParseAddr(webAddr), Pod: "shop/web", Labels: map[string]string{"app": "web", "evil": "\x1b[31m\nlevel=ERROR"}},
		Protocol:    "tcp", SourcePort: 40000, Port: 80, Policies: []string{"shop/web", "shop/web-2"},
	}, got)

	got = d.named(t, deniedPacket("portcullis quarantine egress", "10.244.1.99", dbAddr, 80))
	require.Equal(t, admin.ReasonQuarantine, got.Reason)
	require.Equal(t, "egress", got.Direction)
	require.Equal(t, admin.End{Addr: netip.MustParseAddr("10.244.1.99")}, got.Source)
	require.Empty(t, got.Policies)

	got = d.named(t, deniedPacket("portcullis cut", dbAddr, webAddr, 80))
	require.Equal(t, admin.ReasonCut, got.Reason)
	require.Empty(t, got.Direction)

	strange := nflog.Packet{Prefix: "portcullis policy egress", Protocol: 99} // truncated
	got = d.named(t, strange)
	require.Equal(t, "99", got.Protocol)
	require.Equal(t, d.clock().Now(), got.Time)

	d.tell(t.Context(), []nflog.Packet{deniedPacket("somebody else's", dbAddr, webAddr, 80)})
	require.Len(t, d.feed.Recent(), 4)
	require.Equal(t, 1.0, testutil.ToFloat64(d.meters().logged.WithLabelValues("quarantine")))
	require.Equal(t, 2.0, testutil.ToFloat64(d.meters().logged.WithLabelValues("policy")))
	d.rules.none(t) // nothing was written because of it
}

func (d *denialTest) clock() *clocktesting.FakeClock { return d.loopTest.clock }
func (d *denialTest) meters() *meters                { return d.denials.meters }

// TestManyPoliciesAndLabels are cut short.
func TestManyPoliciesAndLabels(t *testing.T) {
	d := startDenials(t)
	inLoop(t, d.loopTest, func(*loop) bool {
		d.index.verdict = func(netip.Addr, netip.Addr, ir.Protocol, uint16) (v policy.Verdict) {
			for i := range 10_000 {
				v.Ingress.Policies = append(v.Ingress.Policies, fmt.Sprint("shop/", i))
			}
			return v
		}
		for i := range 1000 {
			d.index.pods[netip.MustParseAddr(dbAddr)].Labels[fmt.Sprint("label-", i)] = strings.Repeat("x", 60)
		}
		return true
	})
	got := d.named(t, deniedPacket("portcullis policy ingress", dbAddr, webAddr, 80))
	require.Len(t, got.Policies, maxNamed)
	require.Less(t, len(got.Source.Labels), 70)
	require.Equal(t, "db", got.Source.Labels["app"])
}

// TestPacketsArePaced names so many in a second and no more; those that find no room are
// lost and counted, along with those that the kernel lost.
func TestPacketsArePaced(t *testing.T) {
	d := startDenials(t)
	for range maxVisit + 10 {
		d.waiting <- deniedPacket("portcullis audit ingress", dbAddr, webAddr, 80)
	}
	d.start(t)
	eventually(t, "the first are named", func() bool { return len(d.feed.Recent()) == maxVisit })
	eventually(t, "it rests", d.clock().HasWaiters)
	d.clock().Step(maxVisit*perPacket - 1)
	require.Len(t, d.feed.Recent(), maxVisit)
	p := deniedPacket("portcullis audit ingress", dbAddr, webAddr, 80)
	for i := range maxWaiting + 5 {
		p.Lost = uint64(i % 2)
		d.log.packets <- p
	}
	const lost = (maxWaiting+5)/2 + 10 + 5
	eventually(t, "some are lost", func() bool { return testutil.ToFloat64(d.meters().lost) == lost })
	d.clock().Step(1)
	eventually(t, "the next are named", func() bool { return len(d.feed.Recent()) == 2*maxVisit })
	require.EqualValues(t, 2*maxVisit, d.audits.summary().Logged)
}

// TestLogIsReopened goes on when reading has failed.
func TestLogIsReopened(t *testing.T) {
	d := startDenials(t)
	opened := 0
	d.open = func() (packetLog, error) {
		if opened++; opened == 1 {
			return nil, errors.New("not yet")
		}
		return d.log, nil
	}
	d.start(t)
	d.log.failed <- errors.New("netlink is gone")
	d.loopTest.log.wait(t, "cannot be read", "netlink is gone")
	for range 2 {
		eventually(t, "it waits", d.clock().HasWaiters)
		d.clock().Step(watchAgain)
	}
	d.log.packets <- deniedPacket("portcullis policy ingress", dbAddr, webAddr, 80)
	eventually(t, "it is named", func() bool { return len(d.feed.Recent()) == 1 })
	require.Equal(t, 2, opened)
}

// TestTakenGroup is asked for again once a minute, without more than one warning.
func TestTakenGroup(t *testing.T) {
	d := startDenials(t)
	attempts := make(chan bool)
	open := func(int, uint16) (packetLog, error) {
		if <-attempts {
			return d.log, nil
		}
		return nil, fmt.Errorf("nflog group 4040: %w", nflog.ErrTaken)
	}
	cfg := Config{LogGroup: 4040, Logger: d.loopTest.loop.log, openPackets: open}
	go func() { attempts <- false }()
	d.packets = cfg.openLog()
	require.Nil(t, d.packets)
	require.EqualValues(t, 4040, cfg.rules().LogGroup, "the rules copy packets all the same")
	d.open = func() (packetLog, error) { return open(0, 4040) }
	d.start(t)
	t.Cleanup(func() { close(attempts) }) // whoever still tries must be able to end
	for _, free := range []bool{false, false, true} {
		eventually(t, "it waits", d.clock().HasWaiters)
		d.clock().Step(takenAgain - 1)
		require.True(t, d.clock().HasWaiters())
		d.clock().Step(1)
		attempts <- free
	}
	d.log.packets <- deniedPacket("portcullis policy ingress", dbAddr, webAddr, 80)
	eventually(t, "it is named", func() bool { return len(d.feed.Recent()) == 1 })
	require.Equal(t, 1, d.loopTest.log.count("level=WARN"))
	require.Equal(t, 1, d.loopTest.log.count("denied packets are logged now"))

	for _, never := range []error{nflog.ErrUnsupported, nflog.ErrPermission} {
		cfg := Config{LogGroup: 4040, Logger: d.loopTest.loop.log, openPackets: func(int, uint16) (packetLog, error) { return nil, never }}
		require.Nil(t, cfg.openLog())
		require.Zero(t, cfg.rules().LogGroup)
	}
}

// TestPanicOfAVisit is an error of who asked, and the loop goes on.
func TestPanicOfAVisit(t *testing.T) {
	d := startDenials(t)
	d.index.verdict = nil
	got := d.named(t, deniedPacket("portcullis policy ingress", dbAddr, webAddr, 80))
	require.Equal(t, "shop/web", got.Destination.Pod)
	d.loopTest.log.wait(t, "panic while the loop was asked")
	d.pod("more")
	d.rules.answer(t, "apply", nil)
	v := visits{nil, make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorContains(t, v.do(ctx, nil), "busy")
	ended := make(chan struct{})
	close(ended)
	require.ErrorIs(t, visits{nil, ended}.do(t.Context(), nil), errEnded)
}

// TestDenialLines logs a kind of flow once in a while, with what there was in between, and
// a flood of kinds not at all.
func TestDenialLines(t *testing.T) {
	book, logger := newLogbook()
	c := clocktesting.NewFakeClock(time.Unix(1e9, 0))
	n := newDenialLines(logger, c)
	d := admin.Denial{
		Reason: admin.ReasonPolicy, Direction: "ingress", Protocol: "tcp", Port: 80, Policies: []string{"shop/web"},
		Source: admin.End{Addr: netip.MustParseAddr("10.0.0.1"), Pod: "shop/db"}, Destination: admin.End{Addr: netip.MustParseAddr(webAddr)},
		Closest: &admin.Closest{Policy: "shop/web", Rule: "spec.ingress[0]", Missing: "from\npod x\" level=ERROR"},
	}
	for range 18 {
		n.add(d)
	}
	require.Equal(t, 1, book.count("\n"))
	require.Contains(t, book.String(), `level=INFO msg="packet denied" reason=policy direction=ingress source=10.0.0.1 sourcePod=shop/db destination=10.244.1.7 protocol=tcp port=80 `+
		`policies=[shop/web] closest="shop/web spec.ingress[0]" missing="from\npod x\" level=ERROR"`)
	c.Step(lineEvery - 1)
	n.add(d)
	require.Equal(t, 1, book.count("\n"))
	c.Step(1)
	n.add(d)
	require.Contains(t, book.String(), "more=18\n")
	c.Step(lineEvery)
	n.add(d)
	require.Equal(t, 1, book.count("more="))
	d.Reason = admin.ReasonAudit
	n.add(d)
	require.Contains(t, book.String(), `msg="packet would be denied"`)

	for port := range uint16(maxLines + 5) {
		d.Port = 1000 + port
		n.add(d)
	}
	require.Equal(t, 3+maxLines-1, book.count("\n")) // one more of the same time is about the audit
	c.Step(lineEvery)
	n.add(d)
	require.Contains(t, book.String(), "packets=7\n") // two were of this time before the flood
}
