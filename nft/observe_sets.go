package nft

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// dumpRequest is what one dump asks for.
type dumpRequest struct {
	what  string // for errors
	kind  int
	one   bool // attrs name the one object that is asked for
	attrs []netlink.Attribute
	fn    func([]byte) error
}

type requestName struct {
	kind uint16
	name string
}

type requestNames []requestName

func (n requestNames) attributes() (out []netlink.Attribute) {
	for _, r := range n {
		out = append(out, name(r.kind, r.name))
	}
	return out
}

func (k *kernel) sets(ctx context.Context, table string, complete *bool) ([]*Set, error) {
	var out []*Set
	attrs := requestNames{{unix.NFTA_SET_TABLE, table}}
	err := k.dump(ctx, dumpRequest{what: "sets", kind: unix.NFT_MSG_GETSET, attrs: attrs.attributes(), fn: func(b []byte) error {
		out = append(out, decodeSet(b))
		return nil
	}}, complete)
	return out, err
}

// setConcat is a flag of sets that package unix lacks.
const setConcat = 0x80

// decodeSet reads a set's description. Type is 0 for a set of a kind that we
// never make.
func decodeSet(b []byte) *Set {
	flags := number(b, unix.NFTA_SET_FLAGS)
	s := &Set{
		Name:     text(b, unix.NFTA_SET_NAME),
		Map:      flags&unix.NFT_SET_MAP != 0,
		Interval: flags&unix.NFT_SET_INTERVAL != 0,
		Expires:  flags&unix.NFT_SET_TIMEOUT != 0,
	}
	if flags&unix.NFT_SET_EVAL != 0 {
		s.Counts = number(attribute(b, unix.NFTA_SET_DESC), unix.NFTA_SET_DESC_SIZE) == maxTallies
		if !s.Counts {
			return s
		}
	}
	if flags&^(unix.NFT_SET_MAP|unix.NFT_SET_INTERVAL|unix.NFT_SET_TIMEOUT|unix.NFT_SET_EVAL|setConcat) != 0 {
		return s
	}
	if attribute(b, unix.NFTA_SET_TIMEOUT) != nil {
		return s // we give every element its own
	}
	if s.Map && number(b, unix.NFTA_SET_DATA_TYPE) != unix.NFT_DATA_VERDICT {
		return s
	}
	for t, key := range keyTypes {
		if key.GetNFTMagic() == number(b, unix.NFTA_SET_KEY_TYPE) && key.Bytes == number(b, unix.NFTA_SET_KEY_LEN) {
			s.Type = t
		}
	}
	return s
}

// rawElement is an element as the kernel has it: of a range, the start and the
// end are two.
type rawElement struct {
	key     string
	end     bool
	verdict Verdict
	timeout time.Duration // what is left of it
	packets uint64
}

// Elements implements Kernel. A read lacks elements while the kernel makes the set
// larger, which it does a moment after they were added; so two reads have to agree.
func (k *kernel) Elements(ctx context.Context, table string, set *Set) ([]Element, error) {
	var before []Element
	for i := 1; ; i++ {
		list, err := k.readElements(ctx, table, set)
		if err != nil {
			return nil, err
		}
		if i > 1 && slices.EqualFunc(before, list, func(a, b Element) bool { return a.Key == b.Key }) || i == maxReads {
			return list, nil
		}
		before = list
	}
}

func (k *kernel) readElements(ctx context.Context, table string, set *Set) ([]Element, error) {
	complete := true
	var s *Set
	// One set, and not all: there may be very many.
	attrs := requestNames{{unix.NFTA_SET_TABLE, table}, {unix.NFTA_SET_NAME, set.Name}}
	err := k.dump(ctx, dumpRequest{what: "set " + set.Name, kind: unix.NFT_MSG_GETSET, one: true, attrs: attrs.attributes(), fn: func(b []byte) error {
		s = decodeSet(b)
		return nil
	}}, &complete)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, err
	}
	if s == nil || s.header() != set.header() {
		return nil, nil
	}
	if err := k.elements(ctx, table, s, &complete); err != nil {
		return nil, err
	}
	return s.Elements, nil
}

func (k *kernel) elements(ctx context.Context, table string, s *Set, complete *bool) error {
	var raw []rawElement
	attrs := requestNames{{unix.NFTA_SET_ELEM_LIST_TABLE, table}, {unix.NFTA_SET_ELEM_LIST_SET, s.Name}}
	err := k.dump(ctx, dumpRequest{what: "elements of " + s.Name, kind: unix.NFT_MSG_GETSETELEM, attrs: attrs.attributes(), fn: func(b []byte) error {
		for _, item := range attributes(attribute(b, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			raw = append(raw, decodeElement(item))
		}
		return nil
	}}, complete)
	if err != nil {
		return err
	}
	s.Elements = joinRanges(raw, s.Interval)
	return nil
}

func decodeElement(item []byte) rawElement {
	var e rawElement
	for kind, data := range attributes(item) {
		switch kind {
		case unix.NFTA_SET_ELEM_KEY:
			e.key = string(attribute(data, unix.NFTA_DATA_VALUE))
		case unix.NFTA_SET_ELEM_FLAGS:
			e.end = number(item, unix.NFTA_SET_ELEM_FLAGS)&unix.NFT_SET_ELEM_INTERVAL_END != 0
		case unix.NFTA_SET_ELEM_EXPIRATION:
			if len(data) == 8 {
				e.timeout = time.Duration(binary.BigEndian.Uint64(data)) * time.Millisecond
			}
		case unix.NFTA_SET_ELEM_EXPR:
			if c := attribute(data, unix.NFTA_EXPR_DATA); text(data, unix.NFTA_EXPR_NAME) == "counter" {
				e.packets = number64(c, unix.NFTA_COUNTER_PACKETS)
			}
		case unix.NFTA_SET_ELEM_DATA:
			if v := attribute(data, unix.NFTA_DATA_VERDICT); v != nil {
				code := int32(number(v, unix.NFTA_VERDICT_CODE))
				e.verdict = decodeVerdict(&expr.Verdict{Kind: expr.VerdictKind(code), Chain: text(v, unix.NFTA_VERDICT_CHAIN)})
			}
		}
	}
	return e
}

// joinRanges turns what was read into elements. Dumps may name an element twice
// if the kernel resizes the set meanwhile.
func joinRanges(raw []rawElement, interval bool) []Element {
	slices.SortFunc(raw, func(a, b rawElement) int {
		if c := cmp.Compare(a.key, b.key); c != 0 || a.end == b.end {
			return c
		}
		if a.end { // a range ends before the next one starts at the same key
			return -1
		}
		return 1
	})
	raw = slices.CompactFunc(raw, func(a, b rawElement) bool {
		a.timeout, a.packets = b.timeout, b.packets // which may differ in the second place
		return a == b
	})
	out := make([]Element, 0, len(raw))
	open := false
	for _, r := range raw {
		switch {
		case !interval:
			out = append(out, Element{r.key, r.key, r.verdict, r.timeout, r.packets})
		case !r.end:
			out = append(out, Element{r.key, lastKey(len(r.key)), r.verdict, r.timeout, r.packets})
			open = true
		case open: // nft puts an end in front of the first range, which means nothing
			out[len(out)-1].Last = predecessor(r.key)
			open = false
		}
	}
	return out
}

// lastKey returns the greatest key of a length.
func lastKey(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = 0xff
	}
	return string(b)
}
