package site

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/store"
)

// The codes of deadlines. Alarms are bound to them, so they never change.
const (
	codeExpiryService  = "expiry.service"  // the certificate that the RPC is served with
	codeExpiryCaller   = "expiry.caller"   // the newest certificate of a configured caller
	codeExpiryForeign  = "expiry.foreign"  // a foreign CA, by whose certificates callers come in
	codeExpiryIssuer   = "expiry.issuer"   // an issuing CA
	codeExpiryRoot     = "expiry.root"     // the root CA
	codeExpiryRootList = "expiry.root_crl" // the newest CRL of the offline root
	codeExpiryList     = "expiry.list"     // the newest published CRL of an issuing CA
)

// Deadline is the end of something that the installation lives on.
type Deadline struct {
	Code     string    // stable
	Subject  string    // whose: a common name, a caller's name or an issuer; stable while Code is the same
	NotAfter time.Time // when it ends
	Fix      string    // what to do before that
}

// Severity tells how near a deadline is; empty is far enough.
type Severity string

// The severities.
const (
	SeverityFine     Severity = ""
	SeverityInfo     Severity = "info"
	SeverityWarning  Severity = "warning"
	SeverityCritical Severity = "critical"
)

// day is 24 hours: the unit in which all deadlines are counted.
const day = 24 * time.Hour

// Severity judges a deadline at a time. What has ended is critical.
func (d Deadline) Severity(now time.Time) Severity {
	info, warning, critical := 30*day, 14*day, 7*day
	switch d.Code {
	case codeExpiryRootList: // somebody has to fetch the root key from where it lies
		info, warning = 90*day, 30*day
	case codeExpiryList: // signed anew every 12 hours for seven days, so that days of trouble fit in
		info, warning, critical = 0, 3*day, day
	}
	switch left := d.NotAfter.Sub(now); {
	case left <= critical:
		return SeverityCritical
	case left <= warning:
		return SeverityWarning
	case left <= info:
		return SeverityInfo
	}
	return SeverityFine
}

// Deadlines gives what ends some day: the service's own certificate, the newest of each configured caller,
// the CAs, foreign ones too, the root's CRL and the published lists. It needs no key room and reads no more as
// certificates become many. With an error it still gives what could be read.
func Deadlines(ctx context.Context, c Config, s *store.Store) ([]Deadline, error) {
	var all []Deadline
	var failed error
	for _, read := range []func(context.Context, *store.Store) ([]Deadline, error){
		c.serviceDeadline, c.callerDeadlines, c.foreignDeadlines, c.ceremonyDeadlines, c.listDeadlines,
	} {
		some, err := read(ctx, s)
		all = append(all, some...)
		failed = errors.Join(failed, err)
	}
	return all, failed
}

func (c Config) serviceDeadline(context.Context, *store.Store) ([]Deadline, error) {
	own, _, err := c.ownPair()
	if err != nil {
		return nil, err
	}
	return []Deadline{{
		codeExpiryService, own.Leaf.Subject.CommonName, own.Leaf.NotAfter,
		"the daemon renews it by itself while it runs: look for " + codeExpiryService + " in its log, mend that, and restart it",
	}}, nil
}

// callerDeadlines gives the latest end of each caller's certificates, also when it has passed. A caller
// without one, or with revoked ones only, is nobody whom an end could surprise.
func (c Config) callerDeadlines(ctx context.Context, s *store.Store) ([]Deadline, error) {
	var all []Deadline
	for _, caller := range c.Callers {
		n, err := name.Canonical(cert.Caller, caller.Name)
		if err != nil {
			return all, fmt.Errorf("caller %s: %w", caller.Name, err)
		}
		found, err := s.Find(ctx, store.Query{Purpose: cert.Caller, Key: n.Key, States: []store.State{store.StateLive}})
		if err != nil {
			return all, err
		}
		var last time.Time
		for _, one := range found {
			if one.NotAfter.After(last) {
				last = one.NotAfter
			}
		}
		if !last.IsZero() {
			all = append(all, Deadline{
				codeExpiryCaller, caller.Name, last,
				"have the caller make a new key and ask ca.issue for purpose caller and cn " + caller.Name + " (docs/RPC.md, A caller's own certificate)",
			})
		}
	}
	return all, nil
}

// ceremonyDeadlines gives the ends of the CAs' certificates and of the root's newest list, as the log
// names them.
func (c Config) ceremonyDeadlines(ctx context.Context, s *store.Store) ([]Deadline, error) {
	entries, err := s.Ceremony(ctx)
	if err != nil {
		return nil, err
	}
	var all []Deadline
	var rootList time.Time
	for _, entry := range entries {
		var d Deadline
		var certificate []byte
		switch e := entry.Event.(type) {
		case *audit.RootNamed:
			d, certificate = Deadline{Code: codeExpiryRoot, Subject: string(cert.Root)}, e.Certificate
		case *audit.IssuerNamed:
			d, certificate = Deadline{Code: codeExpiryIssuer, Subject: string(e.Issuer)}, e.Certificate
		case *audit.RootListNamed:
			rootList = e.NextUpdate
			continue
		default:
			continue
		}
		parsed, err := x509.ParseCertificate(certificate)
		if err != nil {
			return all, fmt.Errorf("reading the certificate of %s in leaf %d: %w", d.Subject, entry.Index, err)
		}
		d.NotAfter = parsed.NotAfter
		d.Fix = "make a new installation with chancery init, let everybody trust its trust/root.pem, and move callers to it"
		all = append(all, d)
	}
	if rootList.IsZero() {
		return all, errors.New("the log names no CRL of the root")
	}
	dir := filepath.Dir(c.Path)
	return append(all, Deadline{
		codeExpiryRootList, string(cert.Root), rootList,
		"where the root key is, run chancery root-crl sign OFFLINEDIR; bring its root.crl.pem here, and run chancery root-crl install " + dir + " root.crl.pem",
	}), nil
}

// listDeadlines gives the ends of the lists that hosts can pull, and of those that would be the first there.
func (c Config) listDeadlines(ctx context.Context, s *store.Store) ([]Deadline, error) {
	lists, err := s.ListTimes(ctx)
	if err != nil {
		return nil, err
	}
	var all []Deadline
	for _, l := range lists {
		end := l.PublishedNextUpdate
		if end.IsZero() {
			end = l.NextUpdate
		}
		all = append(all, Deadline{
			codeExpiryList, string(l.Issuer), end,
			"run chancery fsck " + filepath.Dir(c.Path) + ", and look for crl.sign and crl.publish in the daemon's log: lists are signed anew every 12 hours while it runs",
		})
	}
	return all, nil
}
