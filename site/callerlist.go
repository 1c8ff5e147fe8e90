package site

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/rpc"
	"github.com/chancery-ca/chancery/store"
)

// CallerEntry is a configured caller with what the books know of its name, or a name of which only the books know.
type CallerEntry struct {
	Name         string              `json:"name"`
	Configured   bool                `json:"configured"`
	Credentials  []rpc.Credential    `json:"credentials"` // none: any of Certificates
	Grants       int                 `json:"grants"`
	Certificates []CallerCertificate `json:"certificates"` // of the callers CA
}

// CallerCertificate is one that is not revoked.
type CallerCertificate struct {
	Serial   cert.Serial `json:"serial"`
	NotAfter time.Time   `json:"not_after"`
	SPKI     string      `json:"spki"`  // SHA-256 of its key
	State    string      `json:"state"` // live, expiring or expired
}

// The states of a caller's certificate.
const (
	CallerLive     = "live"
	CallerExpiring = "expiring" // within 30 days
	CallerExpired  = "expired"
)

// Callers lists the configured callers in the order of the file, and behind them the names that are no callers and
// have certificates of the callers CA that are good. Of expired certificates only the latest is told, of a caller
// that has no other.
func Callers(ctx context.Context, c Config, now time.Time) (all []CallerEntry, err error) {
	s, err := store.OpenReader(ctx, c.StorePath(), func() time.Time { return now })
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	found, err := s.Find(ctx, store.Query{Purpose: cert.Caller, States: []store.State{store.StateLive}})
	if err != nil {
		return nil, err
	}
	held := make(map[string][]CallerCertificate)
	for _, one := range found {
		held[one.CN] = append(held[one.CN], callerCertificate(one, now))
	}
	for _, caller := range c.Callers {
		e := CallerEntry{Name: caller.Name, Configured: true, Grants: len(caller.Grants)}
		e.Credentials = append([]rpc.Credential{}, caller.Credentials...)
		e.Certificates = newest(held[caller.Name], true)
		delete(held, caller.Name)
		all = append(all, e)
	}
	configured := len(all)
	for cn, certificates := range held {
		if certificates = newest(certificates, false); len(certificates) > 0 {
			all = append(all, CallerEntry{Name: cn, Credentials: []rpc.Credential{}, Certificates: certificates})
		}
	}
	slices.SortFunc(all[configured:], func(a, b CallerEntry) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

func callerCertificate(c store.Certificate, now time.Time) CallerCertificate {
	one := CallerCertificate{c.Serial, c.NotAfter, c.SPKISHA256, CallerLive}
	switch left := c.NotAfter.Sub(now); {
	case left < 0:
		one.State = CallerExpired
	case left <= 30*day:
		one.State = CallerExpiring
	}
	return one
}

// newest gives those that have not expired, the latest end first, or if there are none and it is wanted, the one
// that expired last.
func newest(all []CallerCertificate, expired bool) []CallerCertificate {
	slices.SortFunc(all, func(a, b CallerCertificate) int { return b.NotAfter.Compare(a.NotAfter) })
	kept := []CallerCertificate{}
	for i, one := range all {
		if one.State != CallerExpired || expired && i == 0 {
			kept = append(kept, one)
		}
	}
	return kept
}

// CallerPast is what the installation knows of a name that was a caller's.
type CallerPast struct {
	Certificates int       // that were issued for the name
	Leaves       int       // of the log that say what it did
	Last         time.Time // of these
}

// PastCaller looks through the books and the whole log for a name. A caller that came in by a foreign certificate,
// or by a pinned key, and never did anything that is on the log, is not found.
func PastCaller(ctx context.Context, c Config, caller string) (past CallerPast, err error) {
	n, err := name.Canonical(cert.Caller, caller)
	if err != nil {
		return past, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	s, err := store.OpenReader(ctx, c.StorePath(), time.Now)
	if err != nil {
		return past, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	found, err := s.Find(ctx, store.Query{Purpose: cert.Caller, Key: n.Key})
	if err != nil {
		return past, err
	}
	past.Certificates = len(found)
	size, _ := s.Head()
	written := []byte(strconv.Quote(caller)) // which JSON writes the same way
	err = eachLeaf(ctx, s, 0, size, written, func(_ int64, leaf audit.Leaf) error {
		if leaf.Actor.Kind == audit.ByCaller && leaf.Actor.Name == caller {
			past.Leaves, past.Last = past.Leaves+1, leaf.Time
		}
		return nil
	})
	return past, err
}

// CredentialFile gives the credential that names a certificate in a PEM file by its issuer and subject, or by its
// key.
func CredentialFile(path string, byKey bool) (rpc.Credential, error) {
	found, err := readCertificates(path)
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("%s holds %d certificates: want the caller's own", path, len(found))
	}
	if err != nil {
		return rpc.Credential{}, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if byKey {
		return rpc.Credential{SPKI: cert.SHA256(found[0].RawSubjectPublicKeyInfo)}, nil
	}
	return rpc.NameOf(found[0])
}
