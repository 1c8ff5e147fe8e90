package ca

import (
	"context"
	"math/big"
	"slices"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/store"
)

// Status gives what the books say of certificates, in the order in which they were announced; none is
// not an error.
func (a *Authority) Status(ctx context.Context, r StatusRequest) ([]CertificateStatus, error) {
	var queries []store.Query
	switch {
	case r.Serial != "":
		queries = append(queries, store.Query{Serial: r.Serial})
	case r.RequestID != "":
		queries = append(queries, store.Query{Caller: r.Caller, RequestID: r.RequestID})
	default:
		for _, p := range cert.Purposes() {
			if n, ok := r.Names[p]; ok {
				queries = append(queries, store.Query{Purpose: p, Key: n.Key, Limit: maxCandidates, Newest: true})
			}
		}
	}
	var seen []store.Certificate
	for _, q := range queries {
		found, err := a.store.Find(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, c := range found {
			if r.See == nil || r.See(c) {
				seen = append(seen, c)
			}
		}
	}
	if r.Most > 0 && len(seen) > r.Most {
		seen = seen[len(seen)-r.Most:]
	}
	var all []CertificateStatus
	for _, c := range seen {
		s, err := a.status(ctx, c)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

func (a *Authority) status(ctx context.Context, c store.Certificate) (CertificateStatus, error) {
	s := CertificateStatus{Certificate: c, State: string(c.State)}
	if c.State == store.StateLive && a.store.Now().After(c.NotAfter) {
		s.State = "expired"
	}
	var err error
	if s.Directory, err = a.publication(ctx, c); err != nil {
		return s, err
	}
	if c.State == store.StateRevoked {
		state, err := a.listState(ctx, c.Issuer, false)
		if err != nil {
			return s, err
		}
		s.List = &state
	}
	return s, nil
}

// publication tells whether the directory is known to show what the books say of the certificate's
// name.
func (a *Authority) publication(ctx context.Context, c store.Certificate) (Publication, error) {
	if !a.published(c.Purpose) || c.State == store.StateAbandoned {
		return Publication{State: "none"}, nil
	}
	_, owed, err := a.store.Owed(ctx, store.Directory, debtKey(c.Purpose, c.Key))
	if err != nil {
		return Publication{}, err
	}
	if owed || c.State == store.StateOpen {
		return Publication{State: "pending", Entry: c.Entry}, nil
	}
	if c.State == store.StateRevoked {
		return Publication{State: "removed", Entry: c.Entry}, nil
	}
	return Publication{State: "published", Entry: c.Entry}, nil
}

// listState tells whether the list in git is known to hold every revocation in the books, and, if one is
// missing that nothing is owed for yet, that it does not. While it is pending, Number is the least
// that the list in git will have.
func (a *Authority) listState(ctx context.Context, issuer cert.Issuer, missing bool) (ListState, error) {
	debt, owed, err := a.store.Owed(ctx, store.CRL, string(issuer))
	if err != nil {
		return ListState{}, err
	}
	lists, err := a.store.ListTimes(ctx)
	if err != nil {
		return ListState{}, err
	}
	list := store.List{}
	if i := slices.IndexFunc(lists, func(l store.List) bool { return l.Issuer == issuer }); i >= 0 {
		list = lists[i]
	}
	if !owed && !missing && list.PublishedNumber != "" {
		return ListState{Issuer: issuer, Number: list.PublishedNumber, State: "published", Commit: list.PublishedCommit}, nil
	}
	s := ListState{Issuer: issuer, State: "pending", Number: list.Number}
	if n, ok := new(big.Int).SetString(list.Number, 10); ok && (missing || debt.Generation > list.Signed) {
		s.Number = n.Add(n, big.NewInt(1)).String()
	}
	return s, nil
}
