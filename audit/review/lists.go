package review

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/crl/gitrepo"
	"github.com/chancery-ca/chancery/crl/list"
)

// The codes of a contradiction between the log and a list that one of its CAs signed.
const (
	CRLNotOnLog   = "crl.not_on_log" // the key of a CA was used, and the log does not say so
	CRLEntry      = "crl.entry"      // an entry that is not what the log says of the certificate
	CRLIncomplete = "crl.incomplete" // a revocation is missing
)

const bundleFile = "bundle.crl.pem"

// lists checks every list in the history: whatever verifies under a CA of the log must be on the log,
// hold what had been revoked, and nothing else.
func (r *Report) lists(ctx context.Context, books *audit.Books, h *History) error {
	c, err := newListChecker(books)
	if err != nil {
		return err
	}
	err = gitrepo.History(ctx, h.remote, h.folder, func(commit *gitrepo.Commit) error {
		if !h.commits[commit.Hash] {
			return nil // newer than the log as it was read
		}
		for _, file := range c.files {
			if err := c.look(ctx, commit, file); err != nil {
				return err
			}
		}
		return nil
	})
	r.Findings = append(r.Findings, c.findings...)
	r.Lists = c.good
	return err
}

type listChecker struct {
	books    *audit.Books
	files    []string
	issuers  []*x509.Certificate
	ids      []cert.Issuer
	revoked  map[cert.Issuer][]span // in the order of the log
	seen     map[string]bool        // files and lists, by checksum
	good     int
	findings []Finding
}

func newListChecker(books *audit.Books) (*listChecker, error) {
	c := &listChecker{books: books, files: []string{bundleFile}, revoked: make(map[cert.Issuer][]span), seen: make(map[string]bool)}
	for id, issuer := range books.Issuers {
		parsed, err := x509.ParseCertificate(issuer.Certificate)
		if err != nil {
			return nil, fmt.Errorf("reading the certificate of issuer %s: %w", id, err)
		}
		c.ids, c.issuers, c.files = append(c.ids, id), append(c.issuers, parsed), append(c.files, string(id)+".crl")
	}
	for _, certificate := range books.Certificates {
		c.revoked[certificate.Issuer] = append(c.revoked[certificate.Issuer], spans(certificate)...)
	}
	for _, all := range c.revoked {
		slices.SortFunc(all, func(a, b span) int { return cmp.Compare(a.by, b.by) })
	}
	return c, nil
}

// span is a time for which a certificate was revoked, in leaves: a hold ends when it is released.
type span struct {
	of     *audit.Certificate
	at     time.Time
	reason cert.Reason
	by, to int64
	last   int64 // the leaf that gave the reason
}

func spans(c *audit.Certificate) []span {
	var all []span
	for _, h := range c.Holds {
		all = append(all, span{c, h.At, cert.CertificateHold, h.By, h.To, h.By})
	}
	if c.State == audit.Revoked {
		all = append(all, span{c, c.RevokedAt, c.Reason, c.RevokedBy, math.MaxInt64, c.RestatedBy})
	}
	return all
}

// look reads one file of a commit. What is not a list of ours there is a finding.
func (c *listChecker) look(ctx context.Context, commit *gitrepo.Commit, file string) error {
	content, ok, err := commit.File(ctx, file)
	if errors.Is(err, gitrepo.ErrHostile) {
		c.foreign(commit, file, err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading %s of commit %s: %w", file, commit.Hash, err)
	}
	if !ok || c.known(content) {
		return nil
	}
	parsed := []*list.List{nil}
	if file == bundleFile {
		parsed, err = list.ParseBundle(content)
	} else {
		parsed[0], err = list.Parse(content)
	}
	if err != nil {
		c.foreign(commit, file, err)
		return nil
	}
	for _, l := range parsed {
		if file == bundleFile && c.known(l.Raw) {
			continue
		}
		if err := c.list(commit, file, l); err != nil {
			return err
		}
	}
	return nil
}

// known tells whether a file or a list has been looked at, and notes that it has.
func (c *listChecker) known(content []byte) bool {
	sum := cert.SHA256(content)
	before := c.seen[sum]
	c.seen[sum] = true
	return before
}

func (c *listChecker) foreign(commit *gitrepo.Commit, file string, err error) {
	c.findings = append(c.findings, Finding{commit.Hash, CRLForeign, fmt.Sprintf("%s: %q", file, err.Error())})
}

// list judges one list. Its own signature tells whose it is, wherever it stands.
func (c *listChecker) list(commit *gitrepo.Commit, file string, l *list.List) error {
	for i, issuer := range c.issuers {
		if l.Verify(issuer) != nil {
			continue
		}
		if contradiction := c.judge(c.books.Issuers[c.ids[i]], l); contradiction != nil {
			contradiction.Source = fmt.Sprintf("commit %s, file %s", commit.Hash, file)
			return contradiction
		}
		c.good++
		return nil
	}
	c.foreign(commit, file, errors.New("no CA that the log names signed it"))
	return nil
}

func (c *listChecker) judge(issuer *audit.IssuerBook, l *list.List) *audit.Contradiction {
	signed, ok := issuer.Find(cert.SHA256(l.Raw))
	if !ok || signed.Number != l.Number.String() {
		return contradiction(-1, CRLNotOnLog, "issuer %s signed list %s, and the log does not say so", issuer.ID, l.Number)
	}
	if signed.Intent < 0 { // the root signs away from the log, which cannot tell what should be in it
		return nil
	}
	for _, e := range l.Entries {
		if contradiction := c.entry(issuer, l, signed, e); contradiction != nil {
			return contradiction
		}
	}
	for _, r := range c.revoked[issuer.ID] {
		if r.by > signed.Intent {
			break
		}
		// The room dropped by its own clock, from which thisUpdate may differ.
		expired := l.ThisUpdate.Add(list.Skew).After(r.of.NotAfter.Add(list.KeepAfterExpiry))
		if _, present := l.Find(r.of.Serial); !present && !expired && r.to > signed.Index {
			return contradiction(signed.Index, CRLIncomplete, "list %s of %s lacks %s, which leaf %d revoked", l.Number, issuer.ID, r.of.Serial, r.by)
		}
	}
	return nil
}

// entry judges one entry of a list: the certificate was revoked when the room signed, somewhere between
// the list's two leaves.
func (c *listChecker) entry(issuer *audit.IssuerBook, l *list.List, signed audit.Signed, e list.Entry) *audit.Contradiction {
	of := c.books.Certificates[e.Serial]
	if of == nil || of.Issuer != issuer.ID {
		return contradiction(signed.Index, CRLEntry, "list %s of %s revokes %s, which the log had not", l.Number, issuer.ID, e.Serial)
	}
	by := int64(-1)
	for _, r := range spans(of) {
		if r.by > signed.Index || r.to <= signed.Intent {
			continue
		}
		// A date that is earlier is by the room's clock, which had not come to that of the log.
		if by = r.last; !e.RevokedAt.After(r.at) && e.Reason.CanBecome(r.reason) {
			return nil
		}
	}
	if by < 0 {
		return contradiction(signed.Index, CRLEntry, "list %s of %s revokes %s, which the log had not", l.Number, issuer.ID, e.Serial)
	}
	return contradiction(signed.Index, CRLEntry, "list %s of %s gives a later date or another reason for %s than leaf %d", l.Number, issuer.ID, e.Serial, by)
}

func contradiction(index int64, code, format string, args ...any) *audit.Contradiction {
	return &audit.Contradiction{Index: index, Code: code, Reason: fmt.Sprintf(format, args...)}
}
