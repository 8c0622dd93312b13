package spoof

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"time"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// This file reads the table with netlink messages of its own, because
// google/nftables v0.3.0 tells neither the device of a chain nor expressions that
// it does not know.

// observed is what the kernel holds of the table.
type observed struct {
	exists  bool
	dormant bool // the table's chains are switched off
	chains  map[string]*chain
}

// chain is a chain of the table and its rules. A rule that holds what this package
// never writes is nil.
type chain struct {
	hook  hook
	rules [][]expr.Any
}

// hook is where a base chain is attached.
type hook struct {
	device   string // one device; chains with several are not ours
	number   uint32
	priority int32
	policy   uint32
	kind     string
}

func hookOf(device string) hook {
	return hook{device: device, number: unix.NF_NETDEV_INGRESS, priority: math.MinInt32, policy: 1 /* NF_ACCEPT */, kind: "filter"}
}

// holds compares rules in order, but not their comments.
func (c *chain) holds(rules []rule) bool {
	return slices.EqualFunc(c.rules, rules, func(have []expr.Any, want rule) bool { return reflect.DeepEqual(have, want.exprs) })
}

// observeTries bounds how often reading is repeated because something changed
// meanwhile, be it in another table.
const observeTries = 20

var errBusy = errors.New("the ruleset kept changing while it was read")

func dialReader(netns int) (*netlink.Conn, error) {
	if netns < 0 {
		return nil, fmt.Errorf("network namespace: %d is no file descriptor", netns)
	}
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netns})
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	return c, nil
}

// observe reads the table, all of it from one generation of the ruleset.
func (g *Guard) observe(ctx context.Context) (*observed, error) {
	for range observeTries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		before, err := g.generation()
		if err != nil {
			return nil, err
		}
		o, err := g.read()
		if err != nil {
			return nil, err
		}
		after, err := g.generation()
		if err != nil {
			return nil, err
		}
		if before == after {
			return o, nil
		}
	}
	return nil, errBusy
}

// generation returns the number of the ruleset, which every commit changes.
func (g *Guard) generation() (id uint32, err error) {
	err = g.request(unix.NFT_MSG_GETGEN, 0, nil, func(a attrs) error {
		id = a.number(unix.NFTA_GEN_ID)
		return nil
	})
	return id, err
}

func (g *Guard) read() (*observed, error) {
	o := &observed{chains: map[string]*chain{}}
	err := g.request(unix.NFT_MSG_GETTABLE, netlink.Dump, nil, func(a attrs) error {
		if a.text(unix.NFTA_TABLE_NAME) == tableName {
			o.exists = true
			o.dormant = a.number(unix.NFTA_TABLE_FLAGS)&unix.NFT_TABLE_F_DORMANT != 0
		}
		return nil
	})
	if err != nil || !o.exists {
		return o, err
	}
	err = g.request(unix.NFT_MSG_GETCHAIN, netlink.Dump, nil, func(a attrs) error {
		if a.text(unix.NFTA_CHAIN_TABLE) != tableName {
			return nil
		}
		h, err := decodeHook(a)
		o.chains[a.text(unix.NFTA_CHAIN_NAME)] = &chain{hook: h}
		return err
	})
	if err != nil {
		return nil, err
	}
	// Decoding is most of the work, and most rules are as they were the last time,
	// or the same for every device.
	seen := map[string][]expr.Any{}
	filter := []netlink.Attribute{{Type: unix.NFTA_RULE_TABLE, Data: append([]byte(tableName), 0)}}
	err = g.request(unix.NFT_MSG_GETRULE, netlink.Dump, filter, func(a attrs) error {
		c := o.chains[a.text(unix.NFTA_RULE_CHAIN)]
		if c == nil || a.text(unix.NFTA_RULE_TABLE) != tableName {
			return nil
		}
		raw := a[unix.NFTA_RULE_EXPRESSIONS]
		rule, known := g.decoded[string(raw)]
		if !known {
			rule, known = seen[string(raw)]
		}
		var err error
		if !known {
			rule, err = decodeRule(raw)
		}
		seen[string(raw)] = rule
		c.rules = append(c.rules, rule)
		return err
	})
	if err != nil {
		return nil, err
	}
	g.decoded = seen
	return o, nil
}

// request sends one message and hands the attributes of each answer to fn.
func (g *Guard) request(kind int, flags netlink.HeaderFlags, filter []netlink.Attribute, fn func(attrs) error) error {
	data, err := netlink.MarshalAttributes(filter)
	if err != nil {
		return err
	}
	if err := g.reader.SetDeadline(time.Now().Add(replyDeadline)); err != nil {
		return fmt.Errorf("deadline: %w", err)
	}
	replies, err := g.reader.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind), Flags: netlink.Request | flags},
		Data:   append([]byte{unix.NFPROTO_NETDEV, unix.NFNETLINK_V0, 0, 0}, data...),
	})
	if err != nil {
		return fmt.Errorf("read the table netdev %s: %w", tableName, err)
	}
	for _, r := range replies {
		if len(r.Data) < 4 {
			return errors.New("netlink message without a netfilter header")
		}
		a, err := decodeAttrs(r.Data[4:])
		if err == nil {
			err = fn(a)
		}
		if err != nil {
			return fmt.Errorf("decode the table netdev %s: %w", tableName, err)
		}
	}
	return nil
}

func decodeHook(a attrs) (hook, error) {
	nested := a[unix.NFTA_CHAIN_HOOK]
	if nested == nil {
		return hook{}, nil // no base chain
	}
	h, err := decodeAttrs(nested)
	if err != nil {
		return hook{}, err
	}
	return hook{
		device:   h.text(unix.NFTA_HOOK_DEV),
		number:   h.number(unix.NFTA_HOOK_HOOKNUM),
		priority: int32(h.number(unix.NFTA_HOOK_PRIORITY)),
		policy:   a.number(unix.NFTA_CHAIN_POLICY),
		kind:     a.text(unix.NFTA_CHAIN_TYPE),
	}, nil
}

// decodeRule returns the expressions of a rule, or nil if not all are of the kinds
// that this package writes.
func decodeRule(list []byte) ([]expr.Any, error) {
	elements, err := netlink.UnmarshalAttributes(list)
	if err != nil {
		return nil, err
	}
	var out []expr.Any
	for _, e := range elements {
		a, err := decodeAttrs(e.Data)
		if err != nil {
			return nil, err
		}
		data, err := decodeAttrs(a[unix.NFTA_EXPR_DATA])
		if err != nil {
			return nil, err
		}
		x, err := decodeExpr(a.text(unix.NFTA_EXPR_NAME), data)
		if x == nil || err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	return out, nil
}

// decodeExpr returns nil for what this package does not write.
func decodeExpr(name string, a attrs) (expr.Any, error) {
	switch name {
	case "payload":
		return &expr.Payload{
			DestRegister: a.number(unix.NFTA_PAYLOAD_DREG), Base: expr.PayloadBase(a.number(unix.NFTA_PAYLOAD_BASE)),
			Offset: a.number(unix.NFTA_PAYLOAD_OFFSET), Len: a.number(unix.NFTA_PAYLOAD_LEN),
		}, nil
	case "meta":
		return &expr.Meta{Register: a.number(unix.NFTA_META_DREG), Key: expr.MetaKey(a.number(unix.NFTA_META_KEY))}, nil
	case "cmp":
		value, err := dataOf(a[unix.NFTA_CMP_DATA], unix.NFTA_DATA_VALUE)
		return &expr.Cmp{Register: a.number(unix.NFTA_CMP_SREG), Op: expr.CmpOp(a.number(unix.NFTA_CMP_OP)), Data: value}, err
	case "bitwise":
		// Shifts and the like have neither mask nor xor.
		mask, errMask := dataOf(a[unix.NFTA_BITWISE_MASK], unix.NFTA_DATA_VALUE)
		xor, errXor := dataOf(a[unix.NFTA_BITWISE_XOR], unix.NFTA_DATA_VALUE)
		return &expr.Bitwise{
			SourceRegister: a.number(unix.NFTA_BITWISE_SREG), DestRegister: a.number(unix.NFTA_BITWISE_DREG),
			Len: a.number(unix.NFTA_BITWISE_LEN), Mask: mask, Xor: xor,
		}, errors.Join(errMask, errXor)
	case "immediate":
		nested, err := dataOf(a[unix.NFTA_IMMEDIATE_DATA], unix.NFTA_DATA_VERDICT)
		if err != nil || nested == nil || a.number(unix.NFTA_IMMEDIATE_DREG) != unix.NFT_REG_VERDICT {
			return nil, err
		}
		v, err := decodeAttrs(nested)
		return &expr.Verdict{Kind: expr.VerdictKind(int32(v.number(unix.NFTA_VERDICT_CODE))), Chain: v.text(unix.NFTA_VERDICT_CHAIN)}, err
	}
	return nil, nil
}

// dataOf returns one kind of what a nested data attribute holds.
func dataOf(b []byte, kind uint16) ([]byte, error) {
	a, err := decodeAttrs(b)
	return a[kind], err
}

// attrs are netlink attributes by type.
type attrs map[uint16][]byte

func decodeAttrs(b []byte) (attrs, error) {
	list, err := netlink.UnmarshalAttributes(b)
	if err != nil {
		return nil, err
	}
	out := make(attrs, len(list))
	for _, a := range list {
		out[a.Type&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)] = a.Data
	}
	return out, nil
}

// number returns an attribute that is a 32-bit number, 0 if there is none.
func (a attrs) number(kind uint16) uint32 {
	if b := a[kind]; len(b) == 4 {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// text returns an attribute that is a string, empty if there is none.
func (a attrs) text(kind uint16) string {
	b := a[kind]
	if n := len(b); n > 0 && b[n-1] == 0 {
		b = b[:n-1]
	}
	return string(b)
}
