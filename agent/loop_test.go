package agent

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/policy"
)

// loopTest runs a loop between a test and a recorder.
type loopTest struct {
	*loop
	index  *fakeIndex
	rules  *recorder
	clock  *clocktesting.FakeClock
	log    *logbook
	cancel context.CancelFunc
	ended  chan error
}

func startLoop(t *testing.T, prepare ...func(*fakeIndex)) *loopTest {
	book, logger := newLogbook()
	fake := clocktesting.NewFakeClock(time.Unix(1e9, 0))
	l := &loopTest{index: newFakeIndex(), rules: newRecorder(), clock: fake, log: book, ended: make(chan error, 1)}
	for _, p := range prepare {
		p(l.index)
	}
	l.loop = &loop{
		node: "node-1", queue: newQueue(fake), index: l.index, enforcer: l.rules, health: newHealth(fake), log: logger, clock: fake,
		ask: make(chan func(*loop)), visits: make(chan func(*loop)), attachments: newAttachments("node-1"), quarantine: true,
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	go func() { l.ended <- l.run(ctx) }()
	t.Cleanup(cancel)
	return l
}

// stop ends the loop and returns what it returned.
func (l *loopTest) stop(t *testing.T) error {
	t.Helper()
	l.cancel()
	select {
	case err := <-l.ended:
		return err
	case <-time.After(patience):
		t.Fatal("the loop does not end")
	}
	return nil
}

func (l *loopTest) pod(name string) {
	l.queue.put(batch{events: []event{{pod(name), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}}}})
}

func (l *loopTest) policy(name string) {
	l.queue.put(batch{events: []event{{key{policyKind, "shop", name},
		&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}}}})
}

// TestNothingIsWrittenBeforeSync delivers objects without and then with the word that
// they are all: the first write comes with the latter and holds them all.
func TestNothingIsWrittenBeforeSync(t *testing.T) {
	absorbed := make(chan key, 10)
	l := startLoop(t, func(x *fakeIndex) { x.absorbed = absorbed })
	l.pod("a")
	require.Equal(t, pod("a"), <-absorbed)
	l.pod("b")
	require.Equal(t, pod("b"), <-absorbed) // the turn behind "a" is over, too
	l.rules.none(t)
	require.Len(t, l.health.obstacles(), 2)

	l.queue.put(batch{synced: true})
	c := l.rules.answer(t, "takeover", nil)
	require.Equal(t, []string{"Pod shop/a", "Pod shop/b"}, names(c.state))
	eventually(t, "ready", func() bool { return len(l.health.obstacles()) == 0 })
}

// TestChangesAreApplied sees the first write as a takeover and every later one as a
// change, which holds everything that came in meanwhile.
func TestChangesAreApplied(t *testing.T) {
	l := startLoop(t)
	l.queue.put(batch{synced: true})
	c := l.rules.next(t, "takeover")
	l.pod("a")
	l.pod("b")
	c.reply <- nil
	change := l.rules.answer(t, "apply", nil).change
	require.Len(t, change.AddGroups, 2)

	l.queue.put(batch{events: []event{{pod("a"), nil}}})
	require.Len(t, l.rules.answer(t, "apply", nil).change.RemoveGroups, 1)
	l.queue.put(batch{events: []event{{pod("never was"), nil}}}) // changes nothing, writes nothing
	l.pod("c")
	require.Len(t, l.rules.answer(t, "apply", nil).change.AddGroups, 1)
	require.NoError(t, l.stop(t))
}

// TestTidiesUp removes what changes leave behind when they pause, and now and then where
// they do not; if that fails, the agent repairs.
func TestTidiesUp(t *testing.T) {
	l := startLoop(t)
	l.queue.put(batch{synced: true})
	l.rules.answer(t, "takeover", nil)
	change := func(name string) {
		l.pod(name)
		c := l.rules.next(t, "apply")
		l.rules.untidy = true
		c.reply <- nil
		inLoop(t, l, func(*loop) bool { return true }) // the turn is over
	}
	change("a")
	require.True(t, l.clock.HasWaiters())
	l.clock.Step(tidyAfter - 1)
	l.rules.none(t)
	l.clock.Step(1)
	l.rules.answer(t, "tidy", nil)

	for i, since := 0, time.Duration(0); since < tidyAtLast; i++ {
		change(fmt.Sprint("b", i))
		pause := min(tidyAfter-1, tidyAtLast-since)
		l.clock.Step(pause)
		if since += pause; since < tidyAtLast {
			l.rules.none(t)
		}
	}
	l.rules.answer(t, "tidy", nft.ErrUncertain)
	eventually(t, "unhealthy", func() bool { return len(l.health.sicknesses()) > 0 })
	eventually(t, "it waits", l.clock.HasWaiters)
	l.clock.Step(time.Minute)
	l.rules.answer(t, "repair", nil)
}

// TestWhatIsForbiddenLapses: what looks for forbidden flows goes when the last one's time
// is over, be it this agent that forbade it or the one before; a failure is no reason to
// do anything but to try again.
func TestWhatIsForbiddenLapses(t *testing.T) {
	l := startLoop(t)
	l.queue.put(batch{synced: true})
	c := l.rules.next(t, "takeover")
	l.rules.forbids = true
	c.reply <- nil
	waits := func(d time.Duration) {
		t.Helper()
		inLoop(t, l, func(*loop) bool { return true })
		require.True(t, l.clock.HasWaiters())
		l.clock.Step(d - 1)
		inLoop(t, l, func(*loop) bool { return true })
		l.rules.none(t)
		l.clock.Step(1)
	}
	lapses := func(rest time.Duration, err error) {
		t.Helper()
		c := l.rules.next(t, "lapse")
		l.rules.rest = rest
		c.reply <- err
	}
	waits(forbidFor)
	lapses(time.Second, nil)
	waits(time.Second)
	lapses(0, nft.ErrUncertain)
	waits(lapseAgain)
	require.Empty(t, l.health.sicknesses())
	lapses(0, nil)
	inLoop(t, l, func(*loop) bool { return true })
	require.False(t, l.clock.HasWaiters())

	l.pod("a")
	c = l.rules.next(t, "apply")
	l.rules.forbids = true
	c.reply <- nil
	waits(forbidFor)
	lapses(0, nil)
	require.NoError(t, l.stop(t))
}

// TestUncertainWriteIsRepaired fails a write and then repairs, again and again: the
// agent is unhealthy all the while, waits longer each time, and never gives up.
func TestUncertainWriteIsRepaired(t *testing.T) {
	l := startLoop(t)
	l.queue.put(batch{synced: true})
	l.rules.answer(t, "takeover", nil)
	l.pod("a")
	l.rules.answer(t, "apply", fmt.Errorf("send: %w", nft.ErrUncertain))
	l.log.wait(t, "unknown", "retryIn")

	var waited time.Duration
	for range 20 {
		eventually(t, "the loop waits", l.clock.HasWaiters)
		require.NotEmpty(t, l.health.sicknesses())
		l.rules.none(t)
		l.clock.Step(45 * time.Second) // longer than the longest pause
		waited += 45 * time.Second
		l.rules.answer(t, "repair", fmt.Errorf("observe: %w", nft.ErrUncertain))
	}
	eventually(t, "the loop waits", l.clock.HasWaiters)
	l.pod("b") // becomes part of the repair
	eventually(t, "absorbed", func() bool { return len(l.queue.wake) == 0 })
	l.clock.Step(45 * time.Second)
	c := l.rules.answer(t, "repair", nil)
	require.Contains(t, names(c.state), "Pod shop/a")
	l.log.wait(t, "repaired")
	eventually(t, "healthy", func() bool { return len(l.health.obstacles()) == 0 })

	l.pod("c")
	l.rules.answer(t, "apply", nil)
	require.NoError(t, l.stop(t))
}

// TestRepairWaits sees no repair before the pause is over, and pauses that grow.
func TestRepairWaits(t *testing.T) {
	b := retries()
	var last time.Duration
	for i := range 40 {
		d := b.Step()
		require.LessOrEqual(t, d, 45*time.Second, i)
		if i < 8 {
			require.Greater(t, 2*d, last, i)
		}
		last = d
	}
	require.GreaterOrEqual(t, last, 30*time.Second)

	l := startLoop(t)
	l.queue.put(batch{synced: true})
	l.rules.answer(t, "takeover", nft.ErrUncertain)
	eventually(t, "the loop waits", l.clock.HasWaiters)
	l.clock.Step(99 * time.Millisecond)
	require.True(t, l.clock.HasWaiters())
	l.clock.Step(60 * time.Millisecond)
	l.rules.answer(t, "takeover", nil) // nothing was ever in force by this process: take over again
}

// TestAnyFailureIsRepaired repairs also where the enforcer did not say that the
// outcome is unknown.
func TestAnyFailureIsRepaired(t *testing.T) {
	l := startLoop(t)
	l.queue.put(batch{synced: true})
	l.rules.answer(t, "takeover", nil)
	l.pod("a")
	l.rules.answer(t, "apply", errors.New("something else"))
	l.log.wait(t, "something else")
	eventually(t, "the loop waits", l.clock.HasWaiters)
	l.clock.Step(time.Second)
	l.rules.answer(t, "repair", nil)
}

// TestPanicIsAnError ends the loop with an error on a panic, without another write.
func TestPanicIsAnError(t *testing.T) {
	l := startLoop(t, func(x *fakeIndex) { x.panics = "poison" })
	l.queue.put(batch{synced: true})
	l.rules.answer(t, "takeover", nil)
	l.pod("poison")
	require.ErrorContains(t, <-l.ended, "poison")
	l.rules.none(t)
	l.log.wait(t, "the rules stay in force", "loop_test.go")
}

// TestStopInTheMiddleOfAWrite ends in good order, without another write and without
// calling it a failure.
func TestStopInTheMiddleOfAWrite(t *testing.T) {
	l := startLoop(t)
	l.queue.put(batch{synced: true})
	l.rules.answer(t, "takeover", nil)
	l.pod("a")
	l.rules.next(t, "apply")
	require.NoError(t, l.stop(t))
	l.rules.none(t)
	require.Zero(t, l.log.count("level=ERROR"))
}

// TestRevisionIsAnnouncedWhenInForce logs a revision once the kernel holds it and not
// before, and not one that was replaced meanwhile.
func TestRevisionIsAnnouncedWhenInForce(t *testing.T) {
	l := startLoop(t)
	l.queue.put(batch{synced: true, marked: true, revision: "one"})
	c := l.rules.next(t, "takeover")
	require.Zero(t, l.log.count("in force\""))
	c.reply <- nil
	l.log.wait(t, `msg="in force"`, "revision=one")

	l.pod("a")
	l.rules.answer(t, "apply", nil)
	l.queue.put(batch{marked: true, revision: "two"}) // leads to the same rules
	l.log.wait(t, `msg="in force"`, "revision=two")

	l.pod("b")
	c = l.rules.next(t, "apply")
	l.queue.put(batch{events: []event{{pod("c"), nil}}, marked: true, revision: "three"})
	c.reply <- nft.ErrUncertain
	eventually(t, "the loop waits", l.clock.HasWaiters)
	l.queue.put(batch{marked: true, revision: ""}) // a file is wrong: no revision at all
	eventually(t, "absorbed", func() bool { return len(l.queue.wake) == 0 })
	l.clock.Step(time.Second)
	l.rules.answer(t, "repair", nil)
	l.log.wait(t, "repaired")
	l.queue.put(batch{marked: true, revision: "four"})
	l.log.wait(t, `msg="in force"`, "revision=four")
	require.Zero(t, l.log.count("revision=three"))
	require.Equal(t, 3, l.log.count(`msg="in force"`))
}

// TestProblemsAreLoggedOncePerChange logs the problems of a policy when they change,
// not each time that the policy is delivered.
func TestProblemsAreLoggedOncePerChange(t *testing.T) {
	bad := policy.Problem{Object: "NetworkPolicy shop/p", Field: "spec.ingress[0].from[1].ipBlock.cidr", Reason: "not a CIDR"}
	absorbed := make(chan key, 10)
	l := startLoop(t, func(x *fakeIndex) {
		x.problems["p"] = []policy.Problem{bad}
		x.absorbed = absorbed
	})
	for range 3 {
		l.policy("p")
		<-absorbed
	}
	l.log.wait(t, "level=WARN", "NetworkPolicy shop/p", "spec.ingress[0].from[1].ipBlock.cidr", "not a CIDR")
	l.queue.put(batch{events: []event{{key{policyKind, "shop", "p"}, nil}}})
	<-absorbed
	l.policy("p")
	<-absorbed
	l.pod("behind it")
	<-absorbed
	require.Equal(t, 2, l.log.count("level=WARN"))
}
