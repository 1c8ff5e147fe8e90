package ca

import (
	"context"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/store"
)

// The bounds of one look at what expires: rows that are read at once, and in all, so that a caller who
// may see few of many does not hold the books.
const (
	expiringAtOnce = 256
	expiringLooked = 8192
)

// ExpiringRequest asks for live certificates that end from now on within a time.
type ExpiringRequest struct {
	Within  time.Duration
	Purpose cert.Purpose // empty: every one
	After   store.Place  // the Next of the page before
	Most    int          // certificates in a page
	See     func(c store.Certificate) bool
}

// ExpiringPage is a part of what expires, in the order in which it does. Next is where the rest begins,
// nil if there is none. A page can hold fewer certificates than asked for, and still have a Next.
type ExpiringPage struct {
	Certificates []ExpiringCertificate
	Next         *store.Place
}

// ExpiringCertificate is one that ends. Superseded tells that a live certificate of the same purpose and
// name, which See allows too, ends later.
type ExpiringCertificate struct {
	CertificateStatus
	Superseded bool
}

// Expiring gives a page of what expires.
func (a *Authority) Expiring(ctx context.Context, r ExpiringRequest) (ExpiringPage, error) {
	var page ExpiringPage
	now := a.store.Now()
	q := store.ExpiringQuery{From: now, Until: now.Add(r.Within), Purpose: r.Purpose, After: r.After, Limit: expiringAtOnce}
	for looked := 0; ; {
		found, err := a.store.Expiring(ctx, q)
		if err != nil {
			return page, err
		}
		for _, e := range found {
			if len(page.Certificates) == r.Most || looked == expiringLooked {
				page.Next = &q.After
				return page, nil
			}
			looked++
			q.After = store.Place{NotAfter: e.NotAfter, Intent: e.Intent}
			if !r.See(e.Certificate) {
				continue
			}
			status, err := a.status(ctx, e.Certificate)
			if err != nil {
				return page, err
			}
			page.Certificates = append(page.Certificates, ExpiringCertificate{status, e.SupersededByCaller || e.Superseded && r.See(ofOthers(e.Certificate))})
		}
		if len(found) < q.Limit {
			return page, nil
		}
	}
}

// ofOthers is a certificate as it would be if nobody had asked for it. Of those with one purpose and name, who asked
// is all that may hide one from somebody who sees another.
func ofOthers(c store.Certificate) store.Certificate {
	c.Caller = ""
	return c
}
