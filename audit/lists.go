package audit

import (
	"math/big"

	"github.com/chancery-ca/chancery/ca/cert"
)

// above reads a list's number and checks that it is above that of the issuer's last list.
func (i *IssuerBook) above(decimal string) (*big.Int, *Contradiction) {
	n, ok := new(big.Int).SetString(decimal, 10)
	if !ok || n.String() != decimal {
		return nil, contradict(CRLNumber, "%.64q is not a decimal number", decimal)
	}
	if n.Cmp(i.last) <= 0 {
		return nil, contradict(CRLNumber, "list %.64s of %s after list %s", decimal, i.ID, i.last)
	}
	return n, nil
}

// rise takes up the number of the issuer's next list.
func (i *IssuerBook) rise(decimal string) *Contradiction {
	n, c := i.above(decimal)
	if c == nil {
		i.last = n
	}
	return c
}

// lister gives an issuer whose lists a key room signs.
func (b *Books) lister(id cert.Issuer) (*IssuerBook, *Contradiction) {
	i := b.Issuers[id]
	if i == nil || id == cert.Root {
		return nil, contradict(CRLIssuer, "the log names no issuer %.64q", string(id))
	}
	return i, nil
}

// listIntent takes up an announcement. Two can have one number: of a list that was not signed after
// all, and of the next.
func (b *Books) listIntent(index int64, e *CRLIntent) *Contradiction {
	i, c := b.lister(e.Issuer)
	if c != nil {
		return c
	}
	if i.Room != e.Room {
		return contradict(CRLIssuer, "the key of issuer %s is in key room %.64q, not %.64q", i.ID, i.Room, e.Room)
	}
	if _, c := i.above(e.Number); c != nil {
		return c
	}
	i.intents[index] = e
	return nil
}

func (b *Books) listSigned(index int64, e *CRLSigned) *Contradiction {
	i, c := b.lister(e.Issuer)
	if c != nil {
		return c
	}
	intent := i.intents[e.Intent]
	if intent == nil || intent.Number != e.Number {
		return contradict(CRLSignedWithoutIntent, "leaf %d did not announce list %.64q of issuer %s, or the list was signed before", e.Intent, e.Number, i.ID)
	}
	if c := i.rise(e.Number); c != nil {
		return c
	}
	for at := range i.intents {
		if at <= e.Intent { // what was announced before and not signed never will be: its number is too low
			delete(i.intents, at)
		}
	}
	i.Lists = append(i.Lists, Signed{
		Number: e.Number, SHA256: e.SHA256, Intent: e.Intent, Index: index, Entries: e.Entries,
		ThisUpdate: intent.ThisUpdate, NextUpdate: intent.NextUpdate,
	})
	return nil
}

// listsPublished checks that what was read back from the remote is the last that each issuer signed,
// and that the checkpoint beside it covers it.
func (b *Books) listsPublished(index int64, e *CRLPublished) *Contradiction {
	for _, ref := range e.Lists {
		i, c := b.lister(ref.Issuer)
		if c != nil {
			return c
		}
		if len(i.Lists) == 0 {
			return contradict(CRLPublishedUnknown, "list %.64q of issuer %s is published, and none was signed", ref.Number, i.ID)
		}
		last := i.Lists[len(i.Lists)-1]
		if last.Number != ref.Number || last.SHA256 != ref.SHA256 {
			return contradict(CRLPublishedUnknown, "list %.64q of issuer %s is published, and list %s with another checksum or number is the last that was signed", ref.Number, i.ID, last.Number)
		}
		if e.Checkpoint <= last.Index || e.Checkpoint > index {
			return contradict(CRLCheckpoint, "the checkpoint of %d leaves does not cover leaf %d, or leaves that were not there yet", e.Checkpoint, last.Index)
		}
		i.PublishedNumber, i.PublishedCommit = ref.Number, e.Commit
	}
	return nil
}
