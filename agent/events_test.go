package agent

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"

	"github.com/portcullis-netpol/portcullis/nft"
	"github.com/portcullis-netpol/portcullis/policy"
)

// badBlock is a policy for app=web that allows a block, which is none.
func badBlock(cidr string) *networkingv1.NetworkPolicy {
	p := allowFrom("db")
	p.Spec.Ingress[0].From[0] = networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: cidr}}
	return p
}

// eventsTest is an agent on node-1 with a fake API server that keeps Events.
type eventsTest struct {
	*fake.Clientset
	t     *testing.T
	agent *agentTest
}

func startEvents(t *testing.T, objects ...apiruntime.Object) *eventsTest {
	client := fake.NewClientset(objects...)
	return &eventsTest{client, t, startAgent(t, Config{Source: Kubernetes(client), Kernel: nft.NewFake()})}
}

// events returns what the Events are about and the CIDR that each complains of, sorted.
func (e *eventsTest) events() []string {
	list, err := e.CoreV1().Events("").List(e.t.Context(), metav1.ListOptions{})
	require.NoError(e.t, err)
	var out []string
	for _, ev := range list.Items {
		_, cidr, _ := strings.Cut(ev.Message, `"`)
		cidr, _, _ = strings.Cut(cidr, `"`)
		out = append(out, fmt.Sprintf("%s %s %s: %s", ev.InvolvedObject.Kind, ev.InvolvedObject.Name, ev.InvolvedObject.UID, cidr))
	}
	slices.Sort(out)
	return out
}

func (e *eventsTest) wait(want ...string) {
	e.t.Helper()
	slices.Sort(want)
	eventually(e.t, strings.Join(want, ", "), func() bool { return slices.Equal(e.events(), want) })
}

func (e *eventsTest) update(p *networkingv1.NetworkPolicy) {
	e.t.Helper()
	_, err := e.NetworkingV1().NetworkPolicies("shop").Update(e.t.Context(), p, metav1.UpdateOptions{})
	require.NoError(e.t, err)
}

// TestEventsOncePerChange writes an Event about the policy and one about the pod that it
// selects, no other when the policy is delivered again, and others when what is wrong
// changes or the pod is another one. The recorder keeps the order, so that each Event
// also says that no earlier one is missing.
func TestEventsOncePerChange(t *testing.T) {
	web := func(uid string) *corev1.Pod { // with two addresses, isolated in two directions
		p := shopPod("web", "node-1", webAddr)
		p.UID = types.UID(uid)
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: "fd00::7"})
		return p
	}
	badBlock := func(cidr string) *networkingv1.NetworkPolicy {
		p := badBlock(cidr)
		p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		return p
	}
	e := startEvents(t, testNode("node-1"), web("uid-web"), badBlock("010.0.0.0/8"))
	want := []string{"NetworkPolicy web uid-policy: 010.0.0.0/8", "Pod web uid-web: 010.0.0.0/8"}
	e.wait(want...)

	again := badBlock("010.0.0.0/8")
	again.Labels = map[string]string{"touched": "yes"}
	e.update(again)
	e.update(badBlock("10.0.0.0/08"))
	want = append(want, "NetworkPolicy web uid-policy: 10.0.0.0/08", "Pod web uid-web: 10.0.0.0/08")
	e.wait(want...)

	// Another pod in its place, with the same address and seen as one change.
	_, err := e.CoreV1().Pods("shop").Update(t.Context(), web("uid-other"), metav1.UpdateOptions{})
	require.NoError(t, err)
	want = append(want, "Pod web uid-other: 10.0.0.0/08")
	e.wait(want...)

	e.update(allowFrom("db"))
	e.update(badBlock("::ffff:10.0.0.0/104"))
	want = append(want, "NetworkPolicy web uid-policy: ::ffff:10.0.0.0/104", "Pod web uid-other: ::ffff:10.0.0.0/104")
	e.wait(want...)

	list, err := e.CoreV1().Events("shop").List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	for _, ev := range list.Items {
		require.Equal(t, corev1.EventTypeWarning, ev.Type)
		require.Equal(t, "CannotEnforce", ev.Reason)
		require.Equal(t, corev1.EventSource{Component: "portcullis", Host: "node-1"}, ev.Source)
		require.Equal(t, "portcullis", ev.ReportingController)
		require.Equal(t, "node-1", ev.ReportingInstance)
		require.EqualValues(t, 1, ev.Count)
		require.Contains(t, ev.Message, "spec.ingress[0].from[0].ipBlock.cidr")
	}
	for _, a := range e.Actions() {
		if a.GetResource().Resource == "events" {
			require.Contains(t, []string{"create", "list"}, a.GetVerb()) // the latter is this test's
		}
	}
}

// TestEventsOnlyWhereAPodIsSelected writes none while no pod of this node is selected,
// and both when one comes.
func TestEventsOnlyWhereAPodIsSelected(t *testing.T) {
	elsewhere := badBlock("1.2.3.0/024")
	elsewhere.Name, elsewhere.UID = "elsewhere", "uid-elsewhere"
	elsewhere.Spec.PodSelector.MatchLabels["app"] = "db" // on node-2
	e := startEvents(t, testNode("node-1"), shopPod("db", "node-2", dbAddr), elsewhere, badBlock("10.0.0.0/08"))
	e.agent.log.wait(t, "level=WARN", "10.0.0.0/08")
	finished := shopPod("web-0", "node-1", webAddr)
	finished.Labels["app"], finished.Status.Phase = "web", corev1.PodSucceeded
	for _, p := range []*corev1.Pod{finished, shopPod("web", "node-1", webAddr)} {
		_, err := e.CoreV1().Pods("shop").Create(t.Context(), p, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	e.wait("NetworkPolicy web uid-policy: 10.0.0.0/08", "Pod web uid-web: 10.0.0.0/08")
}

// TestEventsOfManyAgents has one Event about the policy, whoever was the first to write
// it, and one about each pod; and nobody complains.
func TestEventsOfManyAgents(t *testing.T) {
	db := shopPod("db", "node-2", dbAddr)
	db.Labels["app"] = "web"
	e := startEvents(t, append(shop()[:3], testNode("node-2"), db, badBlock("10.0.0.0/08"))...)
	book, logger := newLogbook()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Config{Node: "node-2", Source: Kubernetes(e.Clientset), Kernel: nft.NewFake(), Logger: logger})
	}()
	want := []string{"NetworkPolicy web uid-policy: 10.0.0.0/08", "Pod web uid-web: 10.0.0.0/08", "Pod db uid-db: 10.0.0.0/08"}
	e.wait(want...)
	eventually(t, "four were written", func() bool {
		return len(slices.DeleteFunc(e.Actions(), func(a clienttesting.Action) bool { return !a.Matches("create", "events") })) == 4
	})
	require.Len(t, e.events(), 3)
	cancel()
	require.NoError(t, <-ended)
	require.Zero(t, book.count("level=ERROR"))
	require.Zero(t, e.agent.log.count("level=ERROR"))
}

// failingEvents is an API server that takes no Event. It tells when one was tried.
type failingEvents struct {
	typedcorev1.EventInterface
	tried chan struct{}
	err   error // nil: there is no answer
}

func (f failingEvents) Events(string) typedcorev1.EventInterface { return f }

func (f failingEvents) Create(ctx context.Context, _ *corev1.Event, _ metav1.CreateOptions) (*corev1.Event, error) {
	select {
	case f.tried <- struct{}{}:
	default:
	}
	if f.err == nil {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return nil, f.err
}

// failingSource is a source whose objects come and whose Events do not go.
type failingSource struct {
	*clusterSource
	failingEvents
}

func (f failingSource) events() typedcorev1.EventsGetter { return f.failingEvents }

// TestEventsThatFail lets the API server refuse every Event, be away, or not answer at
// all: what is enforced follows the policies all the same, and nothing is left running.
func TestEventsThatFail(t *testing.T) {
	for how, err := range map[string]error{
		"refused":     apierrors.NewForbidden(corev1.Resource("events"), "", errors.New("no such right")),
		"unreachable": errors.New("connection refused"),
		"no answer":   nil,
	} {
		t.Run(how, func(t *testing.T) {
			before := runtime.NumGoroutine()
			client := fake.NewClientset(append(shop()[:4], badBlock("10.0.0.0/08"))...)
			failing := failingEvents{tried: make(chan struct{}, 1), err: err}
			k := nft.NewFake()
			a := startAgent(t, Config{Source: failingSource{Kubernetes(client).(*clusterSource), failing}, Kernel: k})
			<-failing.tried
			waitOutcome(t, k, "drop")
			for _, p := range []*networkingv1.NetworkPolicy{allowFrom("db"), badBlock("10.00.0.0/8"), allowFrom("db")} {
				_, err := client.NetworkingV1().NetworkPolicies("shop").Update(t.Context(), p, metav1.UpdateOptions{})
				require.NoError(t, err)
				want := "drop"
				if p.Spec.Ingress[0].From[0].IPBlock == nil {
					want = "accept"
				}
				waitOutcome(t, k, want)
			}
			a.stop(t)
			eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
		})
	}
}

// TestEventsAreBounded takes more than can be sent, without waiting, and drops the rest.
func TestEventsAreBounded(t *testing.T) {
	before := runtime.NumGoroutine()
	failing := failingEvents{tried: make(chan struct{}, 1)}
	r, shutdown := startRecorder(t.Context(), "node-1", failing)
	begin := runtime.NumGoroutine()
	for i := range 5000 {
		ref := corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: fmt.Sprint("web-", i)}
		r.Event(&ref, corev1.EventTypeWarning, eventReason, "something")
	}
	<-failing.tried
	require.LessOrEqual(t, runtime.NumGoroutine(), begin)
	shutdown()
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
}

// TestWarningsForget keeps nothing of what is gone: agents live long, and pods do not.
func TestWarningsForget(t *testing.T) {
	w := newWarnings(record.NewFakeRecorder(10), "node-1")
	x := policy.NewIndex("node-1")
	web, bad := shopPod("web", "node-1", webAddr), badBlock("10.0.0.0/08")
	x.SetPod(web)
	w.setPod(web)
	w.setProblems(bad, x.SetNetworkPolicy(bad))
	w.flushed(x.Flush())
	require.Len(t, w.policies["shop/web"].toldPod, 1)
	x.DeletePod("shop", "web")
	w.remove(pod("web"))
	w.flushed(x.Flush())
	require.Empty(t, w.policies["shop/web"].toldPod)
	w.remove(key{policyKind, "shop", "web"})
	require.Empty(t, w.uids)
	require.Empty(t, w.endpoints)
	require.Empty(t, w.groups)
	require.Empty(t, w.policies)
}

// TestNoEventsWithoutAnAPIServer: manifests have nobody to tell.
func TestNoEventsWithoutAnAPIServer(t *testing.T) {
	_, ok := Manifests("d").(eventful)
	require.False(t, ok)
}

// TestEventNames are valid for objects with long names, and differ by object and text.
func TestEventNames(t *testing.T) {
	event := func(name, uid, message string) *corev1.Event {
		return &corev1.Event{InvolvedObject: corev1.ObjectReference{Name: name, UID: testPod(name, uid).UID}, Reason: eventReason, Message: message}
	}
	seen := map[string]bool{}
	for i, name := range []string{"a", strings.Repeat("a", 253), strings.Repeat("a", 219) + ".b", strings.Repeat("a", 219) + "-b"} {
		uid := fmt.Sprint("uid-", i)
		for _, e := range []*corev1.Event{event(name, uid, "x"), event(name, uid+"0", "x"), event(name, uid, "y")} {
			n := eventName(e)
			require.Empty(t, validation.NameIsDNSSubdomain(n, false), n)
			require.False(t, seen[n], n)
			seen[n] = true
			require.Equal(t, n, eventName(e))
		}
	}
}

// TestEventMessages are cut where they must, and keep their last sentence.
func TestEventMessages(t *testing.T) {
	require.Equal(t, "it is wrong. So it is.", bounded("it is wrong", " So it is."))
	long := bounded(strings.Repeat("ä", 2000), " So it is.")
	require.LessOrEqual(t, len(long), 1024)
	require.True(t, strings.HasSuffix(long, "ä ... So it is."), long)
}
