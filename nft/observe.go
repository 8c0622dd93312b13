package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// dump runs one dump. After an error the reader is thrown away, because the rest
// of the dump may still arrive.
func (k *kernel) dump(ctx context.Context, d dumpRequest, complete *bool) error {
	if k.reader == nil {
		r, err := newReader(k.netns)
		if err != nil {
			return err
		}
		k.reader = r
	}
	how := netlink.Dump
	if d.one {
		how = netlink.Acknowledge
	}
	whole, err := k.reader.dump(ctx, d.kind, how, d.attrs, d.fn)
	*complete = *complete && whole
	if err != nil {
		err = errors.Join(fmt.Errorf("read %s: %w", d.what, err), k.reader.conn.Close())
		k.reader = nil
	}
	return err
}

// Tables implements Kernel.
func (k *kernel) Tables(ctx context.Context) ([]string, error) {
	var names []string
	complete := true
	err := k.dump(ctx, dumpRequest{what: "tables", kind: unix.NFT_MSG_GETTABLE, fn: func(b []byte) error {
		if n := text(b, unix.NFTA_TABLE_NAME); ours(n) {
			names = append(names, n)
		}
		return nil
	}}, &complete)
	slices.Sort(names)
	return names, err
}

// BaseChains implements Kernel.
func (k *kernel) BaseChains(ctx context.Context, table string) ([]string, error) {
	complete := true
	chains, err := k.chains(ctx, table, &complete)
	var names []string
	for _, c := range chains {
		if c.base() {
			names = append(names, c.Name)
		}
	}
	slices.Sort(names)
	return names, err
}

// Read implements Kernel.
func (k *kernel) Read(ctx context.Context, table string, only ...string) (*Table, bool, error) {
	tables, err := k.Tables(ctx)
	if err != nil {
		return nil, false, err
	}
	if !slices.Contains(tables, table) {
		return nil, true, fmt.Errorf("table %s: %w", table, ErrNotExist)
	}
	complete := true
	t := &Table{Name: table}
	if t.Chains, err = k.chains(ctx, table, &complete); err != nil {
		return nil, false, err
	}
	if len(only) > 0 {
		t.Chains = slices.DeleteFunc(t.Chains, func(c *Chain) bool { return !slices.Contains(only, c.Name) })
		for _, c := range t.Chains {
			if err := k.rules(ctx, table, c.Name, byName(t.Chains, chainName), &complete); err != nil {
				return nil, false, err
			}
		}
		t.sort()
		return t, complete, nil
	}
	if err := k.rules(ctx, table, "", byName(t.Chains, chainName), &complete); err != nil {
		return nil, false, err
	}
	sets, err := k.sets(ctx, table, &complete)
	if err != nil {
		return nil, false, err
	}
	for _, s := range sets {
		if !s.Expires {
			if err := k.elements(ctx, table, s, &complete); err != nil {
				return nil, false, err
			}
		}
		if s.Map {
			t.Maps = append(t.Maps, s)
		} else {
			t.Sets = append(t.Sets, s)
		}
	}
	t.sort()
	return t, complete, nil
}

func (k *kernel) chains(ctx context.Context, table string, complete *bool) ([]*Chain, error) {
	var out []*Chain
	err := k.dump(ctx, dumpRequest{what: "chains", kind: unix.NFT_MSG_GETCHAIN, fn: func(b []byte) error {
		if text(b, unix.NFTA_CHAIN_TABLE) != table {
			return nil
		}
		c := &Chain{Name: text(b, unix.NFTA_CHAIN_NAME)}
		if hook := attribute(b, unix.NFTA_CHAIN_HOOK); hook != nil {
			c.Hook = decodeHook(number(hook, unix.NFTA_HOOK_HOOKNUM), b)
			c.Priority = int32(number(hook, unix.NFTA_HOOK_PRIORITY))
		}
		out = append(out, c)
		return nil
	}}, complete)
	return out, err
}

// hookForeign is a hook, chain type or policy that we never use.
const hookForeign Hook = 255

func decodeHook(hook uint32, b []byte) Hook {
	const accept = 1
	if text(b, unix.NFTA_CHAIN_TYPE) == "filter" && number(b, unix.NFTA_CHAIN_POLICY) == accept {
		switch hook {
		case unix.NF_INET_FORWARD:
			return HookForward
		case unix.NF_INET_LOCAL_IN:
			return HookInput
		case unix.NF_INET_LOCAL_OUT:
			return HookOutput
		case unix.NF_INET_PRE_ROUTING:
			return HookPrerouting
		}
	}
	return hookForeign
}

func (k *kernel) rules(ctx context.Context, table, chain string, chains map[string]*Chain, complete *bool) error {
	attrs := requestNames{{unix.NFTA_RULE_TABLE, table}}
	if chain != "" {
		attrs = append(attrs, requestName{unix.NFTA_RULE_CHAIN, chain})
	}
	return k.dump(ctx, dumpRequest{what: "rules", kind: unix.NFT_MSG_GETRULE, attrs: attrs.attributes(), fn: func(b []byte) error {
		c := chains[text(b, unix.NFTA_RULE_CHAIN)]
		if c == nil || text(b, unix.NFTA_RULE_TABLE) != table {
			return nil
		}
		exprs, err := decodeExprs(attribute(b, unix.NFTA_RULE_EXPRESSIONS))
		if err != nil {
			return err
		}
		r := decodeRule(exprs)
		r.Comment = ruleComment(attribute(b, unix.NFTA_RULE_USERDATA))
		c.Rules = append(c.Rules, r)
		return nil
	}}, complete)
}

// ruleComment finds the comment in a rule's user data: entries of a type, a
// length and as many bytes.
func ruleComment(b []byte) string {
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		if data := b[2 : 2+int(b[1])]; userdata.Type(b[0]) == userdata.TypeComment && len(data) > 0 {
			return string(data[:len(data)-1])
		}
		b = b[2+int(b[1]):]
	}
	return ""
}

// foreignExpr stands for an expression that we never write.
type foreignExpr struct {
	expr.Any
	Name string
	Data string
}

func decodeExprs(list []byte) ([]expr.Any, error) {
	var out []expr.Any
	for _, item := range attributes(list) {
		name, data := text(item, unix.NFTA_EXPR_NAME), attribute(item, unix.NFTA_EXPR_DATA)
		var e expr.Any
		switch name {
		case "meta":
			e = &expr.Meta{}
		case "cmp":
			e = &expr.Cmp{}
		case "payload":
			e = &expr.Payload{}
		case "lookup":
			e = &expr.Lookup{}
		case "bitwise":
			e = &expr.Bitwise{}
		case "ct":
			e = &expr.Ct{}
		case "reject":
			e = &expr.Reject{}
		case "counter", "limit", "log", "dynset":
			// google/nftables has no mercy on what it does not expect in them.
			if e := decodeStatement(name, data); e != nil {
				out = append(out, e)
				continue
			}
		case "immediate":
			if number(data, unix.NFTA_IMMEDIATE_DREG) == unix.NFT_REG_VERDICT {
				e = &expr.Verdict{}
			}
		}
		if e == nil {
			out = append(out, &foreignExpr{Name: name, Data: string(data)})
			continue
		}
		if err := expr.Unmarshal(unix.NFPROTO_INET, data, e); err != nil {
			return nil, fmt.Errorf("expression %s: %w", name, err)
		}
		out = append(out, e)
	}
	return out, nil
}
