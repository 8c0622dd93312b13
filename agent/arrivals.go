package agent

import (
	"fmt"
	"unique"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// arrivals is what a reflector writes to, in place of a store. Every object goes to the
// queue when it is read, those of a list too: the loop is done with most of a large
// cluster when the last of it is read, and nobody keeps objects. Of each only its version
// is remembered, to know what a later list lacks or repeats. A list that fails half way
// does no harm: until the first is complete nothing is written, and the next tells what
// of it is gone.
//
// It belongs to the reflector's goroutine.
type arrivals struct {
	kind   kind
	queue  *queue
	listed func() // called once, when the first list is complete
	// only, if set, is the name of the only object that counts; came and went are
	// called when it is there, and when it is not any more.
	only       string
	came, went func()

	known    map[types.NamespacedName]version
	lists    uint // how many were complete
	complete bool
}

// version is the version of an object that was delivered last.
type version struct {
	uid  types.UID
	text string
	list uint // the last list that it was in, or the one before it came
}

// same reports whether a list has delivered again what was known. Objects without a
// version never are.
func (v version) same(w version) bool { return v.uid == w.uid && v.text == w.text && v.text != "" }

// arrived stands for an object that is in the queue already. Reflectors keep it until
// the end of a list.
type arrived types.NamespacedName

func newArrivals(k kind, q *queue) *arrivals {
	return &arrivals{kind: k, queue: q, listed: func() {}, came: func() {}, went: func() {}, known: map[types.NamespacedName]version{}}
}

var _ cache.TransformingStore = (*arrivals)(nil)

// Transformer is asked by a reflector that reads a streaming list: it passes what it
// reads through what is returned, and what comes out of that to Replace.
func (a *arrivals) Transformer() cache.TransformFunc {
	return func(object any) (any, error) { return a.take(object) }
}

// Add takes a new object.
func (a *arrivals) Add(object any) error {
	_, err := a.take(object)
	return err
}

// Update takes a new state of an object.
func (a *arrivals) Update(object any) error { return a.Add(object) }

// take queues the newest state of an object, if it is not known.
func (a *arrivals) take(object any) (arrived, error) {
	if at, ok := object.(arrived); ok {
		return at, nil
	}
	m, ok := object.(metav1.Object)
	if !ok {
		return arrived{}, fmt.Errorf("%T is no object of the API", object)
	}
	name := types.NamespacedName{Namespace: unique.Make(m.GetNamespace()).Value(), Name: m.GetName()}
	if a.only != "" && name.Name != a.only {
		return arrived(name), nil
	}
	was, known := a.known[name]
	is := version{m.GetUID(), m.GetResourceVersion(), a.lists}
	a.known[name] = is
	if known && is.same(was) {
		return arrived(name), nil
	}
	a.queue.put(batch{events: []event{{a.key(name), strip(object)}}})
	a.came()
	return arrived(name), nil
}

// Delete takes the end of an object.
func (a *arrivals) Delete(object any) error {
	m, ok := object.(metav1.Object)
	if !ok {
		return fmt.Errorf("%T is no object of the API", object)
	}
	name := types.NamespacedName{Namespace: m.GetNamespace(), Name: m.GetName()}
	if a.only == "" || name.Name == a.only {
		a.remove(name)
	}
	return nil
}

func (a *arrivals) remove(name types.NamespacedName) {
	delete(a.known, name)
	a.queue.put(batch{events: []event{{a.key(name), nil}}})
	a.went()
}

// Replace takes a complete list: what is known and not in it is gone.
func (a *arrivals) Replace(list []any, _ string) error {
	a.lists++
	for _, object := range list {
		name, err := a.take(object)
		if err != nil {
			return err
		}
		// What came before the end of the list was noted as of the one before.
		if v, ok := a.known[types.NamespacedName(name)]; ok && v.list != a.lists {
			v.list = a.lists
			a.known[types.NamespacedName(name)] = v
		}
	}
	for name, v := range a.known {
		if v.list != a.lists {
			a.remove(name)
		}
	}
	if !a.complete {
		a.complete = true
		a.listed()
	}
	return nil
}

// Resync does nothing: what is in the queue is not lost.
func (a *arrivals) Resync() error { return nil }

func (a *arrivals) key(name types.NamespacedName) key {
	return key{a.kind, name.Namespace, name.Name}
}
