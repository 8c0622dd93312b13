package nft

import (
	"encoding/binary"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// decodeStatement reads the data of an expression that counts or logs. It returns nil
// for one of a kind that we never write.
func decodeStatement(name string, data []byte) expr.Any {
	switch name {
	case "counter":
		return &expr.Counter{Bytes: number64(data, unix.NFTA_COUNTER_BYTES), Packets: number64(data, unix.NFTA_COUNTER_PACKETS)}
	case "limit":
		return &expr.Limit{
			Type:  expr.LimitType(number(data, unix.NFTA_LIMIT_TYPE)),
			Rate:  number64(data, unix.NFTA_LIMIT_RATE),
			Over:  number(data, unix.NFTA_LIMIT_FLAGS) != 0,
			Unit:  expr.LimitTime(number64(data, unix.NFTA_LIMIT_UNIT)),
			Burst: number(data, unix.NFTA_LIMIT_BURST),
		}
	case "log":
		return decodeLog(data)
	case "dynset":
		return decodeTally(data)
	}
	return nil
}

func decodeLog(data []byte) expr.Any {
	l := &expr.Log{Snaplen: number(data, unix.NFTA_LOG_SNAPLEN), Data: []byte(text(data, unix.NFTA_LOG_PREFIX))}
	for kind, value := range attributes(data) {
		switch kind {
		case unix.NFTA_LOG_GROUP:
			if len(value) != 2 {
				return nil
			}
			l.Group = binary.BigEndian.Uint16(value)
		case unix.NFTA_LOG_PREFIX, unix.NFTA_LOG_SNAPLEN:
		default:
			return nil
		}
		l.Key |= 1 << kind
	}
	return l
}

// decodeTally reads what adds elements to a set, if each has a counter and nothing else.
func decodeTally(data []byte) expr.Any {
	d := &expr.Dynset{
		SrcRegKey: number(data, unix.NFTA_DYNSET_SREG_KEY),
		SetName:   text(data, unix.NFTA_DYNSET_SET_NAME),
		Operation: number(data, unix.NFTA_DYNSET_OP),
	}
	for kind, value := range attributes(data) {
		switch kind {
		case unix.NFTA_DYNSET_SREG_KEY, unix.NFTA_DYNSET_SET_NAME, unix.NFTA_DYNSET_OP:
		case unix.NFTA_DYNSET_TIMEOUT:
			d.Timeout = time.Duration(number64(data, kind)) * time.Millisecond
		case unix.NFTA_DYNSET_FLAGS:
			if number(data, kind) != 0 {
				return nil
			}
		case unix.NFTA_DYNSET_EXPR:
			if text(value, unix.NFTA_EXPR_NAME) != "counter" {
				return nil
			}
			d.Exprs = append(d.Exprs, &expr.Counter{})
		default: // of a map, or with several expressions
			return nil
		}
	}
	return d
}
