package evaluate

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// matches tells whether labels meet every requirement of a valid selector. A selector without requirements matches all.
// A label with an empty value is there.
func matches(s *metav1.LabelSelector, labels map[string]string) bool {
	for key, want := range s.MatchLabels {
		if got, has := labels[key]; !has || got != want {
			return false
		}
	}
	for _, e := range s.MatchExpressions {
		got, has := labels[e.Key]
		var ok bool
		switch e.Operator {
		case metav1.LabelSelectorOpIn:
			ok = has && slices.Contains(e.Values, got)
		case metav1.LabelSelectorOpNotIn:
			ok = !has || !slices.Contains(e.Values, got)
		case metav1.LabelSelectorOpExists:
			ok = has
		case metav1.LabelSelectorOpDoesNotExist:
			ok = !has
		}
		if !ok {
			return false
		}
	}
	return true
}

// valid tells whether the API server would take a selector: well-formed keys and values, a known operator, values where
// the operator needs them and none where it does not.
func valid(s *metav1.LabelSelector) bool {
	for key, value := range s.MatchLabels {
		if !isKey(key) || !isValue(value) {
			return false
		}
	}
	for _, e := range s.MatchExpressions {
		wantsValues := false
		switch e.Operator {
		case metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn:
			wantsValues = true
		case metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist:
		default:
			return false
		}
		if !isKey(e.Key) || wantsValues != (len(e.Values) > 0) || !all(e.Values, isValue) {
			return false
		}
	}
	return true
}

func isKey(key string) bool { return len(validation.IsQualifiedName(key)) == 0 }

func isValue(value string) bool { return len(validation.IsValidLabelValue(value)) == 0 }

func all(list []string, ok func(string) bool) bool {
	return !slices.ContainsFunc(list, func(s string) bool { return !ok(s) })
}
