package policy

import "fmt"

// Problem is one part of an object that cannot be enforced as it is written.
// What it names matches nothing, so the pods that the object selects are never
// more open than the rest of the object says; other objects are not affected.
type Problem struct {
	// Object is the kind and name, as "NetworkPolicy shop/deny".
	Object string
	// Field is the path inside the object, as "spec.ingress[0].from[1].ipBlock.cidr".
	Field string
	// Reason says what is wrong and, where it helps, with which value.
	Reason string
}

// Error returns the problem as one line.
func (p Problem) Error() string {
	return fmt.Sprintf("%s: %s: %s", p.Object, p.Field, p.Reason)
}
