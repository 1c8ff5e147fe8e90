package site

import (
	"context"
	"crypto/x509"
	"fmt"
	"math/big"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/crl/gitrepo"
	"github.com/chancery-ca/chancery/crl/list"
	"github.com/chancery-ca/chancery/store"
)

// owesList tells whether an issuer's list is on its way.
func (f *fsck) owesList(issuer cert.Issuer) bool {
	_, owed := f.debts[string(store.CRL)+" "+string(issuer)]
	return owed
}

// checkLists compares the lists in the store with those that the log says were signed.
func (f *fsck) checkLists(ctx context.Context) error {
	lists, err := f.store.Lists(ctx)
	if err != nil {
		return err
	}
	kept := make(map[cert.Issuer]store.List)
	for _, l := range lists {
		kept[l.Issuer] = l
	}
	for id, book := range f.books.Issuers {
		if id == cert.Root || len(book.Lists) == 0 {
			continue
		}
		last := book.Lists[len(book.Lists)-1]
		row, found := kept[id]
		switch {
		case f.owesList(id):
		case !found || row.Number != last.Number || row.SHA256 != last.SHA256:
			f.violation("store.list_differs", string(id), fixRows, "the log's last list is number %s, the store's number %q", last.Number, row.Number)
		case cert.SHA256(row.DER) != last.SHA256:
			f.violation("store.list_differs", string(id), fixRows, "list %s in the store is not the one that was signed", row.Number)
		}
		if found && !f.owesList(id) && row.PublishedNumber != book.PublishedNumber {
			f.violation("store.list_differs", string(id), fixRows, "the log says list %q is published, the store list %q", book.PublishedNumber, row.PublishedNumber)
		}
	}
	return nil
}

// checkGit looks at what consumers would pull now.
func (f *fsck) checkGit(ctx context.Context) error {
	files, tip, err := gitrepo.Read(ctx, f.remote, f.config.Git.Folder)
	if err != nil {
		f.violation("git.unreadable", f.config.Git.Repository, fixGit, "%v", err)
		return nil
	}
	var chain []*x509.Certificate
	for _, id := range f.issuersInOrder() {
		book := f.books.Issuers[id]
		c, err := x509.ParseCertificate(book.Certificate)
		if err != nil {
			return fmt.Errorf("reading the certificate of %s on the log: %w", id, err)
		}
		chain = append(chain, c)
		if id != cert.Root {
			f.checkGitList(id, book, c, files[string(id)+".crl"])
		}
	}
	if err := list.CheckBundle(files["bundle.crl.pem"], chain, f.store.Now()); err != nil {
		f.violation("git.bundle", "commit "+tip.Commit, fixGit, "consumers would refuse bundle.crl.pem: %v", err)
	}
	return nil
}

// issuersInOrder gives the CAs in the order of the bundle: as the room names them, the root last.
func (f *fsck) issuersInOrder() []cert.Issuer {
	var ids []cert.Issuer
	for _, i := range f.room.Hello().Issuers {
		if f.books.Issuers[i.ID] != nil {
			ids = append(ids, i.ID)
		}
	}
	return append(ids, cert.Root)
}

// checkGitList checks one list at the tip: it is one that the log knows, not older than what was
// published before, and holds every revocation that is not on its way.
func (f *fsck) checkGitList(id cert.Issuer, book *audit.IssuerBook, issuer *x509.Certificate, der []byte) {
	parsed, err := list.Parse(der)
	if err == nil {
		err = parsed.Verify(issuer)
	}
	if err != nil {
		f.violation("git.list", string(id), fixGit, "the list at the tip: %v", err)
		return
	}
	signed, known := book.Find(cert.SHA256(der))
	if !known {
		f.violation("git.list_unknown", string(id), fixStoreOld, "list %s at the tip is genuine and the log does not know it", parsed.Number)
		return
	}
	if published, ok := new(big.Int).SetString(book.PublishedNumber, 10); ok && parsed.Number.Cmp(published) < 0 {
		f.violation("git.list_older", string(id), fixGit, "list %s is at the tip, and list %s was published before", parsed.Number, published)
	}
	if now := f.store.Now(); now.After(parsed.NextUpdate) {
		f.violation("git.list_expired", string(id), fixWait, "list %s expired at %s", parsed.Number, parsed.NextUpdate.Format(time.RFC3339))
	}
	for serial, c := range f.books.Certificates {
		if c.Issuer != id || c.State != audit.Revoked {
			continue
		}
		entry, held := parsed.Find(serial)
		switch {
		case held && (!entry.RevokedAt.Equal(c.RevokedAt) || entry.Reason != c.Reason) && !f.owesList(id):
			f.violation("git.entry", string(serial), fixGit, "list %s says revoked at %s (%s), the log at %s (%s)", signed.Number,
				entry.RevokedAt.Format(time.RFC3339), entry.Reason, c.RevokedAt.Format(time.RFC3339), c.Reason)
		case !held && !f.owesList(id) && !f.dropped(c, parsed):
			f.violation("git.entry", string(serial), fixGit, "revoked, and not in list %s", signed.Number)
		}
	}
	for _, e := range parsed.Entries {
		if c := f.books.Certificates[e.Serial]; c == nil || c.Issuer != id || c.State != audit.Revoked {
			f.violation("git.entry", string(e.Serial), fixGit, "in list %s, and the log does not say that it is revoked", signed.Number)
		}
	}
}

// dropped tells whether an entry may have left: the certificate expired long ago.
func (f *fsck) dropped(c *audit.Certificate, l *list.List) bool {
	return l.ThisUpdate.After(c.NotAfter.Add(list.KeepAfterExpiry))
}
