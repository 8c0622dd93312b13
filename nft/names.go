package nft

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"

	"github.com/portcullis-netpol/portcullis/policy/ir"
)

// Names of the objects that every table has. Objects of groups start with "g_",
// those of peer sets with "u_", so that no name can be one of these or a word of
// nft's grammar, which would make the listing impossible to load again.
const (
	chainDeny      = "deny-cut"
	chainEgress    = "egress"
	chainIngress   = "ingress"
	chainHost      = "host"
	chainCut       = "cut"
	chainFromHost  = "from-host"
	chainBeforeNAT = "before-nat"
	chainLinkLocal = "link-local"
	chainNear      = "near"
	chainMidstream = "midstream"
	chainReset     = "tcp-reset"
)

const (
	// maxReadable bounds the part of a name that is for people.
	maxReadable = 64
	// maxComment is below nft's bound of 128 bytes, the final zero included.
	maxComment = 120
)

// groupChain returns the name of a group's chain: the whole ID, which no other
// group has, and then the first policy for people.
func groupChain(g ir.Group) string {
	name := groupName(g.ID)
	if len(g.Policies) > 0 {
		name += "_" + readable(g.Policies[0])
	}
	return name
}

func groupName(id ir.GroupID) string { return "g_" + safeID(string(id)) }

func groupPorts(id ir.GroupID) string { return groupName(id) + "_ports" }

func groupRanges(id ir.GroupID, p ir.Protocol) string { return groupName(id) + "_" + p.String() }

func peerName(id ir.PeerSetID) string { return "u_" + safeID(string(id)) }

func peerChainName(id ir.PeerSetID, d ir.Direction) string { return peerName(id) + "_" + short(d) }

func short(d ir.Direction) string {
	if d == ir.Egress {
		return "eg"
	}
	return "in"
}

// safeID makes an ID fit for a name. IDs are short and plain already; any other
// one is replaced by its hash, marked by a dot, which no plain ID has.
func safeID(id string) string {
	plain := len(id) > 0 && len(id) <= 48
	for i := 0; i < len(id) && plain; i++ {
		c := id[i]
		plain = 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-'
	}
	if plain {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return "h." + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:])[:26])
}

// endChain returns the name of the chain in which packets end for a reason; for LogCut the
// direction does not matter.
func endChain(r LogReason, d ir.Direction) string {
	switch r {
	case LogPolicy:
		return "deny-" + d.String()
	case LogCut:
		return chainDeny
	}
	return r.String() + "-" + d.String()
}

func readable(s string) string {
	b := []byte(s)
	if len(b) > maxReadable {
		b = b[:maxReadable]
	}
	for i, c := range b {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '/' || c == '.' || c == '-') {
			b[i] = '-'
		}
	}
	return string(b)
}

// policiesComment names as many policies as fit. How many a wide group has changes.
func policiesComment(g ir.Group) string {
	out := g.Direction.String() + ":"
	if g.Audit {
		out = g.Direction.String() + ", audit:"
	}
	for i, p := range g.Policies {
		more := fmt.Sprintf(" and %d more", len(g.Policies)-i)
		if g.Wide {
			more = " and others"
		}
		if len(out)+len(p)+1+len(more) > maxComment && i > 0 {
			return comment(out + more)
		}
		out += " " + p
	}
	return comment(out)
}

// comment makes s fit for a comment: printable ASCII that nft's quoted strings
// can hold, bounded.
func comment(s string) string {
	b := []byte(s)
	for i, c := range b {
		switch {
		case c == '"':
			b[i] = '\''
		case c < ' ' || c > '~' || c == '\\':
			b[i] = '?'
		}
	}
	if len(b) > maxComment {
		return string(b[:maxComment-3]) + "..."
	}
	return string(b)
}
