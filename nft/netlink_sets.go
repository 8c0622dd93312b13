package nft

import (
	"fmt"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
)

// keyTypes are the kernel's key types. What nft needs to list a set, it finds in
// the numbers that google/nftables derives from these names.
var keyTypes = map[SetType]nftables.SetDatatype{
	TypeAddr4:     nftables.TypeIPAddr,
	TypeAddr6:     nftables.TypeIP6Addr,
	TypePair4:     nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeIPAddr),
	TypePair6:     nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeIP6Addr),
	TypeProtoPort: nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService),
	TypePort:      nftables.TypeInetService,
	TypeTuple4:    tupleType(nftables.TypeIPAddr),
	TypeTuple6:    tupleType(nftables.TypeIP6Addr),
	TypeAddrPort4: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService),
	TypeAddrPort6: nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeInetProto, nftables.TypeInetService),
}

func tupleType(addr nftables.SetDatatype) nftables.SetDatatype {
	return nftables.MustConcatSetType(addr, nftables.TypeInetProto, nftables.TypeInetService, addr, nftables.TypeInetService)
}

// concatenated reports whether keys have more than one field.
func (t SetType) concatenated() bool {
	return t != TypeAddr4 && t != TypeAddr6 && t != TypePort
}

func kernelSet(t *nftables.Table, s *Set) (*nftables.Set, error) {
	key, ok := keyTypes[s.Type]
	if !ok {
		return nil, fmt.Errorf("set %s: %s", s.Name, s.Type)
	}
	out := &nftables.Set{
		Table: t, Name: s.Name, KeyType: key, KeyByteOrder: binaryutil.BigEndian,
		IsMap: s.Map, Interval: s.Interval, HasTimeout: s.Expires, Concatenation: s.Type.concatenated(),
	}
	if s.Counts {
		out.Dynamic, out.Size = true, maxTallies
	}
	if s.Map {
		out.DataType = nftables.TypeVerdict
	}
	return out, nil
}

// kernelElements returns elements as the kernel takes them. A range is its first
// key and, marked as an end, the key behind its last one; a range that reaches
// the end of the key space has no end.
func kernelElements(s *Set, elements []Element) ([]nftables.SetElement, error) {
	bytes := 0
	out := make([]nftables.SetElement, 0, len(elements))
	for _, e := range elements {
		bytes += elementBytes(e)
		if e.Timeout != 0 && (!s.Expires || e.Timeout < time.Millisecond) {
			return nil, fmt.Errorf("set %s: an element with a timeout of %s", s.Name, e.Timeout)
		}
		n := nftables.SetElement{Key: []byte(e.Key), Timeout: e.Timeout}
		if e.Verdict.Kind != VerdictNone {
			v, err := e.Verdict.expr()
			if err != nil {
				return nil, err
			}
			n.VerdictData = v
		}
		out = append(out, n)
		if s.Interval {
			if end, ok := successor(e.Last); ok {
				out = append(out, nftables.SetElement{Key: []byte(end), IntervalEnd: true})
			}
		}
	}
	if len(elements) > maxElements || bytes > maxElementBytes {
		return nil, fmt.Errorf("%d elements of set %s are too many for one message", len(elements), s.Name)
	}
	return out, nil
}

// successor returns the key behind key; ok is false if key is the last.
func successor(key string) (next string, ok bool) {
	b := []byte(key)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]++
		if b[i] != 0 {
			return string(b), true
		}
	}
	return "", false
}

// predecessor returns the key in front of key, which is not the first.
func predecessor(key string) string {
	b := []byte(key)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]--
		if b[i] != 0xff {
			break
		}
	}
	return string(b)
}
