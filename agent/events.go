package agent

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/record"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/portcullis-netpol/portcullis/policy"
	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// The component of every Event, and the reasons of those that are not about a condition
// of the node.
const (
	eventComponent = "portcullis"
	eventReason    = "CannotEnforce"
	repairedReason = "RulesRepaired"
)

// maxMessage is the longest text in bytes that the newer API for the same Events
// (events.k8s.io/v1) allows.
const maxMessage = 1024

// eventful is a Source that is an API server, which takes Events.
type eventful interface {
	events() typedcorev1.EventsGetter
}

func (s *clusterSource) events() typedcorev1.EventsGetter { return s.client.CoreV1() }

// startRecorder returns a recorder that sends to the API server what the node's agent
// has to tell, until shutdown or the end of ctx. It is client-go's: one Event at a time, at most 1,000
// waiting (more are dropped), and 25 about one object in a row.
func startRecorder(ctx context.Context, node string, to typedcorev1.EventsGetter) (r record.EventRecorder, shutdown func()) {
	ctx, cancel := context.WithCancel(ctx)
	b := record.NewBroadcaster(record.WithContext(ctx))
	b.StartRecordingToSink(eventSink{ctx, to})
	r = b.NewRecorder(scheme.Scheme, corev1.EventSource{Component: eventComponent, Host: node})
	return r, func() { cancel(); b.Shutdown() }
}

// eventSink writes Events under names that follow from what they say and not from who
// says it. Of all agents that find the same wrong with a policy the first one writes
// the Event; the API server tells the others that it is there already, which the
// recorder takes for an answer. So it is with an agent that is started anew.
type eventSink struct {
	ctx context.Context // of the agent: ends requests that are under way
	to  typedcorev1.EventsGetter
}

func (s eventSink) Create(e *corev1.Event) (*corev1.Event, error) {
	e.Name = eventName(e)
	return s.to.Events(e.Namespace).Create(s.ctx, e, metav1.CreateOptions{})
}

// Update is not in use: the recorder patches.
func (s eventSink) Update(e *corev1.Event) (*corev1.Event, error) {
	return s.to.Events(e.Namespace).Update(s.ctx, e, metav1.UpdateOptions{})
}

func (s eventSink) Patch(e *corev1.Event, data []byte) (*corev1.Event, error) {
	return s.to.Events(e.Namespace).Patch(s.ctx, e.Name, types.StrategicMergePatchType, data, metav1.PatchOptions{})
}

func eventName(e *corev1.Event) string {
	const digits, longest = 32, 253 // hexadecimal digits; characters of a name
	said := string(e.InvolvedObject.UID) + "\x00" + e.Reason + "\x00" + e.Message
	if e.InvolvedObject.Kind == nodeKind.String() {
		said += "\x00" + e.FirstTimestamp.UTC().Format(time.RFC3339) // it happens again
	}
	sum := sha256.Sum256([]byte(said))
	name := e.InvolvedObject.Name
	name = strings.TrimRight(name[:min(len(name), longest-digits-1)], ".-")
	return fmt.Sprintf("%s.%.*x", name, digits/2, sum)
}

// warnings tells the users of the cluster, by Events, about policies that cannot be
// enforced as they are written: one Event about the policy, and one about each pod of
// this node that the policy selects, because `kubectl describe` shows the Events of a
// pod and not those of a NetworkPolicy. Both come when a pod of this node is selected:
// a policy that selects none has closed nothing, and without this condition every
// agent of a big cluster would ask to write the same Event. They come once, and again
// when what is wrong changes.
//
// It belongs to the loop's goroutine. A nil *warnings does nothing.
type warnings struct {
	recorder record.EventRecorder
	node     string

	// What the index said last. Kept here so that a turn costs what it changes.
	groups    map[ir.GroupID][]string // the policies of each group
	endpoints map[netip.Addr]ir.Endpoint
	uids      map[string]types.UID // of this node's pods, by namespace/name

	policies map[string]*badPolicy // by namespace/name
	// namespaces are those whose mode means nothing, by name. They have Events of their
	// own, and their pods have none.
	namespaces map[string]*badPolicy
	fresh      bool // there may be something to tell of any endpoint
}

// badPolicy is a policy with problems, or a namespace.
type badPolicy struct {
	ref     corev1.ObjectReference
	wrong   string
	closes  bool                 // something allows nothing because of them
	told    bool                 // the policy has its Event
	toldPod map[string]types.UID // pods that have theirs
}

func newWarnings(r record.EventRecorder, node string) *warnings {
	return &warnings{
		recorder: r, node: node,
		groups: map[ir.GroupID][]string{}, endpoints: map[netip.Addr]ir.Endpoint{},
		uids: map[string]types.UID{}, policies: map[string]*badPolicy{}, namespaces: map[string]*badPolicy{},
	}
}

// setPod learns the UID of a pod of this node.
func (w *warnings) setPod(p *corev1.Pod) {
	if w == nil || p.Spec.NodeName != w.node {
		return
	}
	name := p.Namespace + "/" + p.Name
	if was, ok := w.uids[name]; ok && was != p.UID {
		w.fresh = true // the endpoint may be the same
	}
	w.uids[name] = p.UID
}

// setProblems replaces what is wrong with a policy.
func (w *warnings) setProblems(np *networkingv1.NetworkPolicy, problems []policy.Problem) {
	if w == nil {
		return
	}
	w.set(w.policies, np.Namespace+"/"+np.Name, problems, corev1.ObjectReference{
		APIVersion: networkingv1.SchemeGroupVersion.String(), Kind: policyKind.String(),
		Namespace: np.Namespace, Name: np.Name, UID: np.UID,
	})
}

// setNamespace replaces what is wrong with a namespace.
func (w *warnings) setNamespace(n *corev1.Namespace, problems []policy.Problem) {
	if w != nil {
		w.set(w.namespaces, n.Name, problems, corev1.ObjectReference{APIVersion: "v1", Kind: namespaceKind.String(), Name: n.Name, UID: n.UID})
	}
}

func (w *warnings) set(all map[string]*badPolicy, name string, problems []policy.Problem, ref corev1.ObjectReference) {
	if len(problems) == 0 {
		delete(all, name)
		return
	}
	wrong := describe(problems)
	if was := all[name]; was != nil && was.ref == ref && was.wrong == wrong {
		return
	}
	all[name] = &badPolicy{ref: ref, wrong: wrong, closes: slices.ContainsFunc(problems, closes), toldPod: map[string]types.UID{}}
	w.fresh = true
}

// closes reports whether what a problem names allows nothing. An annotation that means
// nothing changes nothing.
func closes(p policy.Problem) bool { return strings.HasPrefix(p.Field, "spec") }

func describe(problems []policy.Problem) string {
	var parts []string
	for _, p := range problems {
		parts = append(parts, p.Field+": "+p.Reason)
	}
	return strings.Join(parts, "; ")
}

// remove forgets an object.
func (w *warnings) remove(k key) {
	if w == nil {
		return
	}
	name := k.namespace + "/" + k.name
	switch k.kind {
	case podKind:
		delete(w.uids, name)
		for _, p := range w.policies {
			delete(p.toldPod, name)
		}
	case policyKind:
		delete(w.policies, name)
	case namespaceKind:
		delete(w.namespaces, k.name)
	}
}

// flushed takes the change that the index has made of the objects, and tells what is
// to be told.
func (w *warnings) flushed(c ir.Change) {
	if w == nil {
		return
	}
	for _, g := range c.AddGroups {
		w.groups[g.ID] = g.Policies
	}
	var changed []ir.Endpoint
	for _, e := range c.Endpoints {
		if e.Old != nil {
			delete(w.endpoints, e.Old.Addr)
		}
		if e.New != nil {
			w.endpoints[e.New.Addr] = *e.New
			changed = append(changed, *e.New)
		}
	}
	for _, id := range c.RemoveGroups {
		delete(w.groups, id)
	}
	if w.fresh {
		w.fresh = false
		changed = slices.SortedFunc(maps.Values(w.endpoints), ir.CompareEndpoints)
	}
	if len(w.policies) == 0 && len(w.namespaces) == 0 {
		return
	}
	for _, e := range changed {
		namespace, _, _ := strings.Cut(e.Pod, "/")
		if n := w.namespaces[namespace]; n != nil && e.Ingress+e.Egress != "" {
			w.tellOf(n, "Cannot tell whether its NetworkPolicies are to be enforced, and enforces them: ")
		}
		for _, d := range []ir.Direction{ir.Ingress, ir.Egress} {
			for _, name := range w.groups[e.Group(d)] {
				if p := w.policies[name]; p != nil {
					w.tell(name, p, e.Pod)
				}
			}
		}
	}
}

// ofNode tells of something that is wrong with the node, or was done to it. As a
// kubelet's Events do, it takes the node's name for its UID.
func (w *warnings) ofNode(reason, message string) {
	if w == nil {
		return
	}
	ref := corev1.ObjectReference{APIVersion: "v1", Kind: nodeKind.String(), Name: w.node, UID: types.UID(w.node)}
	w.recorder.Event(&ref, corev1.EventTypeWarning, reason, bounded(strings.TrimSuffix(message, "."), ""))
}

// tell says that a policy with problems selects a pod, where it has not been said.
func (w *warnings) tell(name string, p *badPolicy, pod string) {
	w.tellOf(p, "Cannot be enforced as written: ")
	uid := w.uids[pod]
	if told, ok := p.toldPod[pod]; ok && told == uid {
		return
	}
	p.toldPod[pod] = uid
	namespace, podName, _ := strings.Cut(pod, "/")
	ref := corev1.ObjectReference{APIVersion: "v1", Kind: podKind.String(), Namespace: namespace, Name: podName, UID: uid}
	w.recorder.Event(&ref, corev1.EventTypeWarning, eventReason,
		bounded("NetworkPolicy "+name+" selects this pod and cannot be enforced as written: "+p.wrong, p.consequence()))
}

// tellOf says what is wrong with an object, where it has not been said.
func (w *warnings) tellOf(p *badPolicy, before string) {
	if !p.told {
		p.told = true
		w.recorder.Event(&p.ref, corev1.EventTypeWarning, eventReason, bounded(before+p.wrong, p.consequence()))
	}
}

// consequence is the sentence behind what is wrong.
func (p *badPolicy) consequence() string {
	if p.closes {
		return " What this names allows nothing."
	}
	return " Enforced as if the annotation were not there."
}

// bounded returns a sentence and what follows it, the former cut short if both are too
// long for an Event.
func bounded(sentence, rest string) string {
	const cut = " ..."
	if room := maxMessage - len(rest) - len(cut); len(sentence) > room {
		sentence = strings.ToValidUTF8(sentence[:room], "") + cut
	} else {
		sentence += "."
	}
	return sentence + rest
}
