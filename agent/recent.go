package agent

import (
	"container/list"
	"iter"
)

// recent is a map of bounded size that keeps what was used last.
type recent[K comparable, V any] struct {
	most  int
	byKey map[K]*list.Element
	order list.List // of entry[K, V], the one used last in front
}

type entry[K comparable, V any] struct {
	key   K
	value V
}

func newRecent[K comparable, V any](most int) *recent[K, V] {
	return &recent[K, V]{most: most, byKey: map[K]*list.Element{}}
}

// use returns the value of a key, a zero one if the key is new. If another had to make
// room for it, that is returned, too.
func (r *recent[K, V]) use(k K) (v, forgotten *V) {
	if e := r.byKey[k]; e != nil {
		r.order.MoveToFront(e)
		return &e.Value.(*entry[K, V]).value, nil
	}
	if len(r.byKey) == r.most {
		last := r.order.Remove(r.order.Back()).(*entry[K, V])
		delete(r.byKey, last.key)
		forgotten = &last.value
	}
	e := &entry[K, V]{key: k}
	r.byKey[k] = r.order.PushFront(e)
	return &e.value, forgotten
}

// values are those that are kept, the one used last first.
func (r *recent[K, V]) values() iter.Seq[*V] {
	return func(yield func(*V) bool) {
		for e := r.order.Front(); e != nil; e = e.Next() {
			if !yield(&e.Value.(*entry[K, V]).value) {
				return
			}
		}
	}
}
