package policy

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"net/netip"
)

// encoder writes values so that two different lists of values never give the
// same bytes: every string and every list is preceded by its length. Names like
// ("a-b", "c") and ("a", "b-c") therefore stay apart, whatever they contain.
type encoder struct{ b []byte }

func (e *encoder) num(n uint64) { e.b = binary.AppendUvarint(e.b, n) }

func (e *encoder) str(s string) {
	e.num(uint64(len(s)))
	e.b = append(e.b, s...)
}

func (e *encoder) bool(v bool) {
	if v {
		e.num(1)
		return
	}
	e.num(0)
}

func (e *encoder) prefixes(ps []netip.Prefix) {
	e.num(uint64(len(ps)))
	for _, p := range ps {
		e.str(string(p.Addr().AsSlice()))
		e.num(uint64(p.Bits()))
	}
}

func (e *encoder) portName(n portName) {
	e.num(uint64(n.protocol))
	e.str(n.name)
}

func (e *encoder) String() string { return string(e.b) }

// id returns the name of what was written: the prefix and 130 bits of its
// SHA-256, in characters that every kernel object name may have.
func (e *encoder) id(prefix string) string {
	sum := sha256.Sum256(e.b)
	var text [52]byte
	lower.Encode(text[:], sum[:])
	return prefix + string(text[:26])
}

// lower is base32 in lower case.
var lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
