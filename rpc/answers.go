package rpc

import (
	"fmt"
	"reflect"

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

// without is what is left when octets are kept for something with no more than one element in sixteen of them.
func (s space) without(octets int) space {
	return space{s.octets - octets, s.elements - octets/16}
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
