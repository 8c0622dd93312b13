package policy

import (
	"slices"
	"strings"
	"unique"
)

// word is a string of which the process holds one copy: the label keys and
// values of 100,000 pods are a few thousand strings. Words compare as pointers.
type word = unique.Handle[string]

// label is one label of an object.
type label struct{ key, value word }

// labelSet holds the labels of an object, sorted by key.
type labelSet []label

func newLabelSet(m map[string]string) labelSet {
	if len(m) == 0 {
		return nil
	}
	ls := make(labelSet, 0, len(m))
	for k, v := range m {
		ls = append(ls, label{unique.Make(k), unique.Make(v)})
	}
	slices.SortFunc(ls, func(a, b label) int { return strings.Compare(a.key.Value(), b.key.Value()) })
	return ls
}

// strings returns the labels as an object has them, nil for none.
func (ls labelSet) strings() map[string]string {
	if len(ls) == 0 {
		return nil
	}
	m := make(map[string]string, len(ls))
	for _, l := range ls {
		m[l.key.Value()] = l.value.Value()
	}
	return m
}

// value returns the value of key; an empty value is not a missing one.
func (ls labelSet) value(key word) (word, bool) {
	for _, l := range ls {
		if l.key == key {
			return l.value, true
		}
	}
	return word{}, false
}
