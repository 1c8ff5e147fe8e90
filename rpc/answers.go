package rpc

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/rpc/xmlrpc"
)

// frame is what is kept of an answer for what stands around the certificates in it, and in a multicall for
// each call that ends in a refusal or a fault.
const frame = 8 << 10

// space is what is left of an answer: octets, and elements of XML. It is counted as XML-RPC spells things, which is
// longer than JSON, so that a caller gets the same pages by both.
type space struct{ octets, elements int }

func wholeAnswer() space {
	return space{xmlrpc.MaxResponse, xmlrpc.MaxResponseElements}.without(frame)
}

// without is what is left when octets are kept for something with no more than one element in 32 of them.
func (s space) without(octets int) space {
	return space{s.octets - octets, s.elements - octets/32}
}

// take takes a value's part, if there is as much.
func (s *space) take(value any) (fits bool, err error) {
	octets, elements, err := xmlrpc.Size(xmlTree(value))
	if err != nil {
		return false, fmt.Errorf("measuring an answer: %w", err)
	}
	if octets > s.octets || elements > s.elements {
		return false, nil
	}
	s.octets -= octets
	s.elements -= elements
	return true, nil
}

// fitting gives how many of a page's entries the answer has space for: the others begin the next page.
func fitting[E any](s space, entries []E) (int, error) {
	for i, e := range entries {
		fits, err := s.take(membersOf(reflect.ValueOf(e)))
		if err != nil {
			return 0, err
		}
		if !fits {
			return i, nil
		}
	}
	return len(entries), nil
}

// What a call of a multicall needs of the answer to begin: enough for a certificate with its chain and PKCS#12, or for
// some of a page, and for each certificate that a change can hit. What changes something must not be done and then not
// be told.
const (
	leastLeft = 64 << 10
	hitOctets = 640
)

// mayBegin refuses a call for which the calls before it in a multicall leave no time, or no space for its answer.
func (rq *request) mayBegin(ctx context.Context, p params) error {
	if end, ok := ctx.Deadline(); ok && time.Until(end) < leastTime {
		return refuse("multicall.time", "the calls before it in this multicall took too long for this one, and it was not begun; make it again, by itself")
	}
	needs := leastLeft
	if changes(rq.method) {
		needs += hitOctets * most(p)
	}
	if rest := rq.left.without(needs); rest.octets < 0 || rest.elements < 0 {
		return refuse("multicall.answer", "the answers to the calls before it in this multicall leave no space for the answer to this one, and it was not begun; make it by itself")
	}
	return nil
}

// most is how many certificates the answer to a call may name, as far as the caller says.
func most(p params) int {
	if several, ok := p.(interface{ most() int }); ok {
		return several.most()
	}
	return 1
}

// mostIn is most for parameters that are not bound yet. Those of most methods need not be for that.
func mostIn[P params]() func(list []any) int {
	if _, several := any(*new(P)).(interface{ most() int }); !several {
		return func([]any) int { return 1 }
	}
	return func(list []any) int {
		var p P
		if bindStruct(list, &p) != nil {
			return 0 // it is refused before it does anything
		}
		return most(p)
	}
}

func (p pageParams) most() int { return clamped(p.Limit, defaultPage, maxPage) }

func (statusParams) most() int { return maxStatus }

func (p revokeParams) most() int { return clamped(p.Max, audit.DefaultMax, maxRevoke) }

func (p holdParams) most() int { return clamped(p.Max, audit.DefaultMax, maxRevoke) }

func (retireParams) most() int { return maxRevoke }

// clamped is what a number means that is refused later if it is out of range.
func clamped(n, otherwise, highest int) int {
	if n == 0 {
		return otherwise
	}
	return min(max(n, 0), highest)
}

// What a call can take of the memory while it is carried out, and for each certificate that it may be about: its row,
// its part of the answer as a tree and as text, and what of that is not collected yet. A change tells less of each.
const (
	callWeight        = 32 << 10
	certificateWeight = 8 << 10
	hitWeight         = 4 << 10
)

// weigh gives the octets that a call can take. Those of a multicall are carried out one after the other, and their
// answers together are one.
func (s *Server) weigh(method string, params []any) int {
	if method == multicallName {
		heaviest, all := 0, 0
		for _, c := range innerCalls(params) {
			one := callWeight
			if members, _ := c.(map[string]any); members["methodName"] != multicallName {
				name, _ := members["methodName"].(string)
				inner, _ := members["params"].([]any)
				one = s.weigh(name, inner)
			}
			heaviest, all = max(heaviest, one), all+one
		}
		return callWeight + min(all, heaviest+3*xmlrpc.MaxResponse)
	}
	r, ok := s.methods[method]
	if !ok || r.most == nil {
		return callWeight
	}
	if changes(method) {
		return callWeight + hitWeight*r.most(params)
	}
	return callWeight + certificateWeight*r.most(params)
}
