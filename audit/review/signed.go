package review

import (
	"context"
	"crypto"
	"fmt"
	"maps"
	"slices"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
)

// RequestSignature is the code of a request on the log that its caller has not signed, though it says so.
const RequestSignature = "request.signature"

// Signed is what the log shows of a caller who signs its requests: of the certificates it was issued, of the
// secrets it had opened again, and of what it revoked, held and released.
type Signed struct {
	Caller       string `json:"caller"`
	Signed       int    `json:"signed"`        // leaves with a signature of the caller's
	Unsigned     int    `json:"unsigned"`      // leaves without one
	LastUnsigned int64  `json:"last_unsigned"` // index of the last of those; -1: there is none
}

// signed checks every signed request of the callers whose keys the source names. It gives the first signature that is
// none of theirs as its error.
func (r *Report) signed(ctx context.Context, s Source, size int64) error {
	if len(s.Signers) == 0 {
		return nil
	}
	found := make(map[string]*Signed)
	for _, caller := range slices.Sorted(maps.Keys(s.Signers)) {
		r.Signed = append(r.Signed, Signed{Caller: caller, LastUnsigned: -1})
	}
	for i := range r.Signed {
		found[r.Signed[i].Caller] = &r.Signed[i]
	}
	var root cert.Fingerprint // named before anybody can ask for anything
	return pages(ctx, s.Log, size, func(from int64, leaves [][]byte) error {
		for i, text := range leaves {
			leaf, err := audit.Decode(text)
			if err != nil {
				return err
			}
			if named, is := leaf.Event.(*audit.RootNamed); is {
				root = cert.FingerprintOf(named.Certificate)
			}
			request, can := audit.RequestIn(leaf.Event)
			one := found[leaf.Actor.Name]
			if !can || one == nil || leaf.Actor.Kind != audit.ByCaller {
				continue
			}
			if err := one.count(from+int64(i), request, root, s.Signers[one.Caller]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (one *Signed) count(index int64, request *audit.SignedRequest, root cert.Fingerprint, keys []crypto.PublicKey) error {
	if request == nil {
		one.Unsigned, one.LastUnsigned = one.Unsigned+1, index
		return nil
	}
	if err := request.Verify(root, one.Caller, keys); err != nil {
		return contradiction(index, RequestSignature, "%v", err)
	}
	one.Signed++
	return nil
}

func (one Signed) String() string {
	text := fmt.Sprintf("%s: %d signed, %d not", one.Caller, one.Signed, one.Unsigned)
	if one.Unsigned > 0 {
		text += fmt.Sprintf(", the last of them leaf %d", one.LastUnsigned)
	}
	return text
}
