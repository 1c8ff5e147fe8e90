package keyroom

import (
	"slices"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/crl/list"
)

// revoked is what an issuer's next list will say: the entries in the order of the log, kept encoded,
// so that a list costs the hash of its bytes.
type revoked struct {
	entries []entry
	at      map[cert.Serial]int // index in entries
	encoded []byte

	heldTo   int64     // leaves that the last list covered
	heldTime time.Time // its thisUpdate
}

type entry struct {
	list.Entry
	index    int64 // of the leaf that revoked it
	notAfter time.Time
}

// add takes up a revocation, or a new reason of an old one: then the date stays.
func (r *revoked) add(index int64, rev audit.Revocation, notAfter time.Time) {
	if r.at == nil {
		r.at = make(map[cert.Serial]int)
	}
	if i, ok := r.at[rev.Serial]; ok {
		if r.entries[i].Reason.CanBecome(rev.Reason) {
			r.entries[i].Reason = rev.Reason
			r.encoded = nil
		}
		return
	}
	e := entry{list.Entry{Serial: rev.Serial, RevokedAt: writable(rev.At), Reason: rev.Reason}, index, notAfter}
	r.at[rev.Serial] = len(r.entries)
	r.entries = append(r.entries, e)
	if r.encoded != nil {
		if encoded, err := list.AppendEntry(r.encoded, e.Entry); err == nil {
			r.encoded = encoded
		} else {
			r.encoded = nil // the next list says why
		}
	}
}

// release takes an entry out again if it is a hold, which alone can end (RFC 5280 section 5.3.1). It
// tells whether it was.
func (r *revoked) release(serial cert.Serial) bool {
	i, ok := r.at[serial]
	if !ok || r.entries[i].Reason != cert.CertificateHold {
		return false
	}
	delete(r.at, serial)
	r.entries, r.encoded = slices.Delete(r.entries, i, i+1), nil
	for later := i; later < len(r.entries); later++ {
		r.at[r.entries[later].Serial] = later
	}
	return true
}

// writable gives the date that a list can carry. The leaf is on the log for good: a date that cannot be
// encoded would keep every later list from being made.
func writable(at time.Time) time.Time {
	earliest := time.Date(1950, 1, 1, 0, 0, 0, 0, time.UTC) // RFC 5280 section 5.1.2.4
	if at = at.UTC().Truncate(time.Second); at.Before(earliest) {
		return earliest
	}
	return at
}

// maxDropped bounds what one list drops, and so the journal record that says so.
const maxDropped = 10_000

// droppable gives the entries that a list of time now may leave out.
func (r *revoked) droppable(now time.Time) []cert.Serial {
	var serials []cert.Serial
	for _, e := range r.entries {
		if len(serials) == maxDropped {
			break // the rest leaves with the next list
		}
		if e.index < r.heldTo && list.MayDrop(e.notAfter, r.heldTime, now) {
			serials = append(serials, e.Serial)
		}
	}
	return serials
}

// without gives the encoded entries less the dropped ones, and their number. It changes nothing but
// the cache.
func (r *revoked) without(dropped []cert.Serial) ([]byte, int, error) {
	if len(dropped) == 0 && r.encoded != nil {
		return r.encoded, len(r.entries), nil
	}
	gone := make(map[cert.Serial]bool, len(dropped))
	for _, serial := range dropped {
		gone[serial] = true
	}
	encoded := make([]byte, 0, 64*len(r.entries))
	for _, e := range r.entries {
		if gone[e.Serial] {
			continue
		}
		var err error
		if encoded, err = list.AppendEntry(encoded, e.Entry); err != nil {
			return nil, 0, err
		}
	}
	if len(dropped) == 0 {
		r.encoded = encoded
	}
	return encoded, len(r.entries) - len(dropped), nil
}

// listed notes that a list of time thisUpdate was signed when the log had size leaves.
func (r *revoked) listed(size int64, thisUpdate time.Time, dropped []cert.Serial) {
	r.heldTo, r.heldTime = size, thisUpdate
	if len(dropped) == 0 {
		return
	}
	gone := make(map[cert.Serial]bool, len(dropped))
	for _, serial := range dropped {
		gone[serial] = true
	}
	kept := r.entries[:0]
	clear(r.at)
	for _, e := range r.entries {
		if !gone[e.Serial] {
			r.at[e.Serial] = len(kept)
			kept = append(kept, e)
		}
	}
	r.entries, r.encoded = kept, nil
}
