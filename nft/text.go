package nft

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// WriteTable writes t in nft's own syntax, as `nft -f` reads it. The text is a
// function of t.
func WriteTable(w io.Writer, t *Table) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "table inet %s {\n", t.Name)
	for _, s := range t.Sets {
		writeSet(b, "set", s)
	}
	for _, s := range t.Maps {
		writeSet(b, "map", s)
	}
	for i, c := range t.Chains {
		if i > 0 {
			fmt.Fprintln(b)
		}
		writeChain(b, c)
	}
	fmt.Fprintln(b, "}")
	return b.Flush()
}

// Text returns what WriteTable writes.
func Text(t *Table) string {
	var b strings.Builder
	_ = WriteTable(&b, t) // a Builder does not fail
	return b.String()
}

func writeSet(w io.Writer, word string, s *Set) {
	fmt.Fprintf(w, "\t%s %s {\n\t\ttype %s", word, s.Name, s.Type)
	if s.Map {
		fmt.Fprint(w, " : verdict")
	}
	fmt.Fprintln(w)
	switch {
	case s.Interval:
		fmt.Fprintln(w, "\t\tflags interval")
	case s.Counts:
		fmt.Fprintf(w, "\t\tsize %d\n\t\tflags dynamic,timeout\n", maxTallies)
	case s.Expires:
		fmt.Fprintln(w, "\t\tflags timeout")
	}
	for i, e := range s.Elements {
		lead, tail := "\t\t             ", ","
		if i == 0 {
			lead = "\t\telements = { "
		}
		if i == len(s.Elements)-1 {
			tail = " }"
		}
		fmt.Fprintf(w, "%s%s%s\n", lead, s.elementText(e), tail)
	}
	fmt.Fprint(w, "\t}\n\n")
}

func writeChain(w io.Writer, c *Chain) {
	fmt.Fprintf(w, "\tchain %s {\n", c.Name)
	if c.base() {
		fmt.Fprintf(w, "\t\t%s\n", c.hookText())
	}
	for _, r := range c.Rules {
		fmt.Fprintf(w, "\t\t%s\n", r)
	}
	fmt.Fprint(w, "\t}\n")
}

func (c *Chain) hookText() string {
	return fmt.Sprintf("type filter hook %s priority %d; policy accept;", c.Hook, c.Priority)
}

// String returns nft's word for the hook.
func (h Hook) String() string {
	switch h {
	case HookForward:
		return "forward"
	case HookInput:
		return "input"
	case HookOutput:
		return "output"
	case HookPrerouting:
		return "prerouting"
	}
	return fmt.Sprintf("hook(%d)", uint8(h))
}

// String returns nft's words for the key type.
func (t SetType) String() string {
	switch t {
	case TypeAddr4:
		return "ipv4_addr"
	case TypeAddr6:
		return "ipv6_addr"
	case TypePair4:
		return "ipv4_addr . ipv4_addr"
	case TypePair6:
		return "ipv6_addr . ipv6_addr"
	case TypeProtoPort:
		return "inet_proto . inet_service"
	case TypePort:
		return "inet_service"
	case TypeTuple4:
		return "ipv4_addr . inet_proto . inet_service . ipv4_addr . inet_service"
	case TypeTuple6:
		return "ipv6_addr . inet_proto . inet_service . ipv6_addr . inet_service"
	case TypeAddrPort4:
		return "ipv4_addr . inet_proto . inet_service"
	case TypeAddrPort6:
		return "ipv6_addr . inet_proto . inet_service"
	}
	return fmt.Sprintf("type(%d)", uint8(t))
}

// String returns the rule as one line of nft.
func (r Rule) String() string {
	var words []string
	for _, m := range r.Match {
		words = append(words, matchText(m))
	}
	if r.Action != nil {
		words = append(words, actionText(r.Action))
	}
	if r.Comment != "" {
		words = append(words, fmt.Sprintf("comment \"%s\"", r.Comment))
	}
	return strings.Join(words, " ")
}

func matchText(m Match) string {
	switch m := m.(type) {
	case CTState:
		return "ct state " + bits(uint32(m), ",", "invalid", "established", "related", "new")
	case TCPFlags:
		return fmt.Sprintf("tcp flags & (%s) != %s", tcpFlagNames(m.Mask), tcpFlagNames(m.Not))
	case Loopback:
		return "iif lo"
	case Within:
		return fmt.Sprintf("%s %s", m.Field, m.Block)
	case ICMPv6Type:
		if m.First == m.Last {
			return fmt.Sprintf("icmpv6 type %d", m.First)
		}
		return fmt.Sprintf("icmpv6 type %d-%d", m.First, m.Last)
	case Family:
		return "meta nfproto " + m.String()
	case Protocol:
		return "meta l4proto " + m.String()
	case In:
		return m.Field.String() + " @" + m.Set
	case Counter:
		return "counter"
	case Limit:
		return fmt.Sprintf("limit rate %d/second burst %d packets", m.Rate, m.Burst)
	}
	return fmt.Sprint(m)
}

func tcpFlagNames(flags uint8) string {
	return bits(uint32(flags), " | ", "fin", "syn", "rst", "psh", "ack")
}

// bits joins the names of the bits that are set, the lowest being the first.
func bits(set uint32, separator string, names ...string) string {
	var out []string
	for i, name := range names {
		if set&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return strings.Join(out, separator)
}

func actionText(a Action) string {
	switch a := a.(type) {
	case Vmap:
		return a.Field.String() + " vmap @" + a.Map
	case Log:
		return fmt.Sprintf("log prefix \"%s\" group %d snaplen %d", a.Prefix, a.Group, a.Snaplen)
	case Tally:
		return fmt.Sprintf("update @%s { %s timeout %s counter }", a.Set, a.Field, tallyTimeoutText)
	}
	return fmt.Sprint(a)
}

// String returns nft's words for the answer.
func (r RejectWith) String() string {
	if r == RejectTCPReset {
		return "reject with tcp reset"
	}
	return "reject with icmpx admin-prohibited"
}

// String returns nft's word for the family, or its number.
func (f Family) String() string {
	if f == familyIPv6 {
		return "ipv6"
	}
	return strconv.Itoa(int(f))
}

// String returns nft's word for the protocol, or its number.
func (p Protocol) String() string {
	switch p {
	case protoTCP:
		return "tcp"
	case protoUDP:
		return "udp"
	case protoSCTP:
		return "sctp"
	}
	return strconv.Itoa(int(p))
}

// String returns nft's expression for the field.
func (f Field) String() string {
	switch f {
	case FieldSaddr4:
		return "ip saddr"
	case FieldDaddr4:
		return "ip daddr"
	case FieldSaddr6:
		return "ip6 saddr"
	case FieldDaddr6:
		return "ip6 daddr"
	case FieldPair4:
		return "ip saddr . ip daddr"
	case FieldPair6:
		return "ip6 saddr . ip6 daddr"
	case FieldProtoPort:
		return "meta l4proto . th dport"
	case FieldPort:
		return "th dport"
	case FieldTuple4:
		return "ip saddr . meta l4proto . th sport . ip daddr . th dport"
	case FieldTuple6:
		return "ip6 saddr . meta l4proto . th sport . ip6 daddr . th dport"
	case FieldSaddrPort4:
		return "ip saddr . meta l4proto . th dport"
	case FieldDaddrPort4:
		return "ip daddr . meta l4proto . th dport"
	case FieldSaddrPort6:
		return "ip6 saddr . meta l4proto . th dport"
	case FieldDaddrPort6:
		return "ip6 daddr . meta l4proto . th dport"
	}
	return fmt.Sprintf("field(%d)", uint8(f))
}

// String returns the verdict in nft's words.
func (v Verdict) String() string {
	switch v.Kind {
	case VerdictNone:
		return ""
	case VerdictAccept:
		return "accept"
	case VerdictDrop:
		return "drop"
	case VerdictReturn:
		return "return"
	case VerdictJump:
		return "jump " + v.Chain
	case VerdictGoto:
		return "goto " + v.Chain
	}
	return fmt.Sprintf("verdict(%d) %s", v.Kind, v.Chain)
}

// elementText returns an element as nft writes it.
func (s *Set) elementText(e Element) string {
	text := s.Type.keyText(e.Key)
	if e.Last != e.Key {
		text = s.Type.rangeText(e.Key, e.Last)
	}
	if e.Timeout != 0 {
		text += fmt.Sprintf(" timeout %dms", e.Timeout.Milliseconds())
	}
	if s.Map {
		text += " : " + e.Verdict.String()
	}
	return text
}

func (t SetType) keyText(key string) string {
	if len(key) != t.size() {
		return fmt.Sprintf("%x", key)
	}
	port := func(s string) string { return strconv.Itoa(int(s[0])<<8 | int(s[1])) }
	switch t {
	case TypeAddr4, TypeAddr6:
		return keyAddr(key).String()
	case TypePair4, TypePair6:
		return keyAddr(key[:len(key)/2]).String() + " . " + keyAddr(key[len(key)/2:]).String()
	case TypeProtoPort:
		return Protocol(key[0]).String() + " . " + port(key[4:])
	case TypePort:
		return port(key)
	case TypeTuple4, TypeTuple6:
		n := (len(key) - 12) / 2
		src, rest := key[:n], key[n:]
		return fmt.Sprintf("%s . %s . %s . %s . %s", keyAddr(src), Protocol(rest[0]), port(rest[4:]), keyAddr(rest[8:8+n]), port(rest[8+n:]))
	case TypeAddrPort4, TypeAddrPort6:
		n := len(key) - 8
		return fmt.Sprintf("%s . %s . %s", keyAddr(key[:n]), Protocol(key[n]), port(key[n+4:]))
	}
	return fmt.Sprintf("%x", key)
}

// size returns the bytes of a key.
func (t SetType) size() int {
	switch t {
	case TypeAddr4:
		return 4
	case TypeAddr6:
		return 16
	case TypePair4, TypeProtoPort:
		return 8
	case TypePair6:
		return 32
	case TypePort:
		return 2
	case TypeTuple4:
		return 20
	case TypeTuple6:
		return 44
	case TypeAddrPort4:
		return 12
	case TypeAddrPort6:
		return 24
	}
	return -1
}

func keyAddr(key string) netip.Addr {
	a, _ := netip.AddrFromSlice([]byte(key)) // invalid, and printed so, for another length
	return a
}

// rangeText writes a range of addresses as a prefix where it is one.
func (t SetType) rangeText(first, last string) string {
	if t == TypeAddr4 || t == TypeAddr6 {
		for bits := 8 * len(first); bits >= 0; bits-- {
			if p := netip.PrefixFrom(keyAddr(first), bits); blockElement(p) == (Element{Key: first, Last: last}) {
				return p.String()
			}
		}
	}
	return t.keyText(first) + "-" + t.keyText(last)
}
