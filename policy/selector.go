package policy

import (
	"fmt"
	"slices"
	"strings"
	"unique"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

type operator uint8

const (
	opIn operator = iota
	opNotIn
	opExists
	opDoesNotExist
)

// requirement is one condition on one label.
type requirement struct {
	key    word
	op     operator
	values []word // sorted by text, distinct; only for opIn and opNotIn
}

// selector is a label selector in canonical form: its requirements all hold,
// and one without requirements matches everything. Two selectors with one key
// are the same selector.
type selector struct {
	requirements []requirement
	key          string
	text         string
}

var selectAll = newSelector(nil)

func newSelector(rs []requirement) selector {
	type keyed struct {
		requirement
		key string
	}
	ks := make([]keyed, 0, len(rs))
	for _, r := range rs {
		ks = append(ks, keyed{r, r.encode()})
	}
	slices.SortFunc(ks, func(a, b keyed) int { return strings.Compare(a.key, b.key) })
	ks = slices.CompactFunc(ks, func(a, b keyed) bool { return a.key == b.key })
	var s selector
	var e encoder
	var texts []string
	for _, k := range ks {
		s.requirements = append(s.requirements, k.requirement)
		e.str(k.key)
		texts = append(texts, k.requirement.String())
	}
	s.key, s.text = e.String(), strings.Join(texts, ",")
	if s.text == "" {
		s.text = "all"
	}
	return s
}

func (s selector) matches(ls labelSet) bool {
	for _, r := range s.requirements {
		if !r.matches(ls) {
			return false
		}
	}
	return true
}

func (r requirement) matches(ls labelSet) bool {
	v, ok := ls.value(r.key)
	switch r.op {
	case opIn:
		return ok && slices.Contains(r.values, v)
	case opNotIn:
		return !ok || !slices.Contains(r.values, v)
	case opExists:
		return ok
	default:
		return !ok
	}
}

func (r requirement) encode() string {
	var e encoder
	e.str(r.key.Value())
	e.num(uint64(r.op))
	e.num(uint64(len(r.values)))
	for _, v := range r.values {
		e.str(v.Value())
	}
	return e.String()
}

// String returns the requirement as kubectl takes it after -l.
func (r requirement) String() string {
	var vs []string
	for _, v := range r.values {
		vs = append(vs, v.Value())
	}
	k, list := r.key.Value(), strings.Join(vs, ",")
	switch {
	case r.op == opIn && len(vs) == 1:
		return k + "=" + list
	case r.op == opIn:
		return k + " in (" + list + ")"
	case r.op == opNotIn:
		return k + " notin (" + list + ")"
	case r.op == opExists:
		return k
	default:
		return "!" + k
	}
}

// parseSelector reads a selector. Where one condition is invalid there is no
// telling what the selector was to match, and ok is false.
func parseSelector(s *metav1.LabelSelector, field string, report reporter) (sel selector, ok bool) {
	ok = true
	var rs []requirement
	for _, k := range sortedKeys(s.MatchLabels) {
		r, valid := parseRequirement(k, metav1.LabelSelectorOpIn, []string{s.MatchLabels[k]}, fmt.Sprintf("%s.matchLabels[%s]", field, k), report)
		rs, ok = append(rs, r), ok && valid
	}
	for i, m := range s.MatchExpressions {
		r, valid := parseRequirement(m.Key, m.Operator, m.Values, fmt.Sprintf("%s.matchExpressions[%d]", field, i), report)
		rs, ok = append(rs, r), ok && valid
	}
	if !ok {
		return selector{}, false
	}
	return newSelector(rs), true
}

func parseRequirement(key string, op metav1.LabelSelectorOperator, values []string, field string, report reporter) (requirement, bool) {
	r := requirement{key: unique.Make(key)}
	ok := true
	if errs := validation.IsQualifiedName(key); len(errs) > 0 {
		report(field+".key", "%q is no label key: %s", key, errs[0])
		ok = false
	}
	wantValues := false
	switch op {
	case metav1.LabelSelectorOpIn:
		r.op, wantValues = opIn, true
	case metav1.LabelSelectorOpNotIn:
		r.op, wantValues = opNotIn, true
	case metav1.LabelSelectorOpExists:
		r.op = opExists
	case metav1.LabelSelectorOpDoesNotExist:
		r.op = opDoesNotExist
	default:
		report(field+".operator", "%q is not one of In, NotIn, Exists, DoesNotExist", op)
		return r, false
	}
	if wantValues != (len(values) > 0) {
		report(field+".values", "operator %s with %d values", op, len(values))
		ok = false
	}
	for _, v := range values {
		if errs := validation.IsValidLabelValue(v); len(errs) > 0 {
			report(field+".values", "%q is no label value: %s", v, errs[0])
			ok = false
		}
	}
	texts := slices.Clone(values)
	slices.Sort(texts)
	for _, v := range slices.Compact(texts) {
		r.values = append(r.values, unique.Make(v))
	}
	return r, ok
}

func sortedKeys(m map[string]string) []string {
	ks := make([]string, 0, len(m))
	for k := range m {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return ks
}
