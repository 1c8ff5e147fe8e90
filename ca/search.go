package ca

import (
	"context"

	"github.com/chancery-ca/chancery/store"
)

// searchLooked bounds one look through the books, so that a caller who may see few of many does not hold
// them.
const (
	searchAtOnce = 256
	searchLooked = 8192
)

// SearchRequest selects certificates as store.SearchQuery does, whose After and Limit are not used, and of those
// what See allows. State can also be "expired"; "live" means what has not.
type SearchRequest struct {
	store.SearchQuery
	State string
	After int64 // the Next of the page before
	Most  int   // certificates in a page
	See   func(c store.Certificate) bool
}

// SearchPage is a part of what was found, in the order in which it was announced. Next is where the rest
// begins, 0 if there is none. A page can hold fewer certificates than asked for, and still have a Next.
type SearchPage struct {
	Certificates []CertificateStatus
	Next         int64
}

// Search gives a page of what a request selects.
func (a *Authority) Search(ctx context.Context, r SearchRequest) (SearchPage, error) {
	var page SearchPage
	q := r.SearchQuery
	q.After, q.Limit = r.After, searchAtOnce
	now := a.store.Now()
	switch q.State = store.State(r.State); r.State {
	case "expired":
		q.State = store.StateLive
		if q.EndsTo.IsZero() || q.EndsTo.After(now) {
			q.EndsTo = now
		}
	case "live":
		if q.EndsFrom.Before(now) {
			q.EndsFrom = now
		}
	}
	for looked := 0; ; looked += q.Limit {
		found, next, err := a.store.Search(ctx, q)
		if err != nil {
			return page, err
		}
		for _, c := range found {
			if !r.See(c) {
				continue
			}
			if len(page.Certificates) == r.Most {
				page.Next = q.After
				return page, nil
			}
			status, err := a.status(ctx, c)
			if err != nil {
				return page, err
			}
			page.Certificates = append(page.Certificates, status)
			q.After = c.Intent
		}
		if next == 0 {
			return page, nil
		}
		if q.After = next; looked+q.Limit >= searchLooked {
			page.Next = next
			return page, nil
		}
	}
}
