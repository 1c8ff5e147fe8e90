package ca

import (
	"cmp"
	"context"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/store"
)

// Renew issues a certificate with the names of one that there is: with a new key, beside the old one,
// which stays as it is. Everything else is as in Issue.
func (a *Authority) Renew(ctx context.Context, call Call, r RenewRequest) (*Issued, error) {
	old, past, err := a.predecessor(ctx, r)
	if past != nil {
		// An answer that was given is given again, whatever became of the old certificate since.
		request, found, failed := a.earlier(ctx, call, store.IssueMethod)
		switch {
		case failed != nil:
			return nil, lost(failed)
		case !found:
			return nil, past
		}
		old, err = a.certificate(ctx, request.Serial)
	}
	if err != nil {
		return nil, lost(err)
	}
	rule, maxDays, err := r.May(old)
	if err != nil {
		return nil, err
	}
	call.Rule = rule
	return a.Issue(ctx, call, IssueRequest{
		Purpose: old.Purpose, Name: name.Name{Text: old.CN, Key: old.Key}, SANs: old.SANs, Renews: old.Serial,
		CSR: r.CSR, KeyType: r.KeyType, ValidDays: r.ValidDays, MaxDays: maxDays, past: past,
	})
}

// notRenewed tells why a certificate is past renewing, if it is.
func notRenewed(c store.Certificate, now time.Time) *Refusal {
	switch {
	case c.State == store.StateRevoked:
		return refuse("certificate.revoked", "certificate %s was revoked at %s (%s); what is revoked is not renewed, issue a new one", c.Serial, c.RevokedAt.UTC().Format(time.RFC3339), c.Reason)
	case now.After(c.NotAfter):
		return refuse("certificate.expired", "certificate %s expired at %s; what has expired is not renewed, issue a new one", c.Serial, c.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

// stillRenewed refuses what became past renewing since it was chosen: making a key can take seconds.
func stillRenewed(find finder, now time.Time, old cert.Serial) error {
	if old == "" {
		return nil
	}
	found, err := find(store.Query{Serial: old})
	if err != nil {
		return err
	}
	for _, c := range found {
		if past := notRenewed(c, now); past != nil {
			return past
		}
	}
	return nil
}

// predecessor gives the certificate that a renewal means: by its serial, or the newest of a name; or why there is none.
func (a *Authority) predecessor(ctx context.Context, r RenewRequest) (newest store.Certificate, why, err error) {
	candidates, _, err := candidates(a.finder(ctx), a.store.Now(), r.Serial, r.Names, []store.State{store.StateLive, store.StateRevoked})
	if err != nil {
		return newest, nil, err
	}
	beyond := make(map[cert.Purpose]denial) // the newest that no grant covers with all of its names
	for _, c := range candidates {
		past := notRenewed(c, a.store.Now())
		_, _, denied := r.May(c)
		switch {
		case unseen(denied, r.Serial != ""):
			none := noCertificate()
			none.Record = denied.Error()
			why = cmp.Or(why, error(none))
		case denied != nil:
			why = denied
			if past == nil && c.Intent >= beyond[c.Purpose].intent {
				beyond[c.Purpose] = denial{c.Intent, denied}
			}
		case c.State == store.StateRevoked:
			why = past
		case past != nil:
			// Who was retired may have certificates that had expired before, which nobody revokes.
			why = cmp.Or(why, error(past))
		case newest.Serial != "" && newest.Purpose != c.Purpose:
			return newest, refuse("selection", "%q has certificates for more than one purpose; say which one to renew", c.CN), nil
		case newest.Serial == "" || c.Intent > newest.Intent:
			newest = c
		}
	}
	// An older one with fewer names is not what was meant.
	if newer := beyond[newest.Purpose]; newest.Serial != "" && newer.intent <= newest.Intent {
		return newest, nil, nil
	} else if newer.why != nil {
		return newest, newer.why, nil
	}
	return newest, cmp.Or(why, error(noCertificate())), nil
}

// denial is why somebody may not renew the certificate of an intent.
type denial struct {
	intent int64
	why    error
}
