package site

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/crl/gitrepo"
	"github.com/chancery-ca/chancery/crl/list"
)

const fixLost = "put the folder of the newest key room back, start it and run chancery recover; docs/BACKUP.md says what else there is"

// tellLost says what git knows and a log that was put back from an old copy does not: lists, and the
// revocations in them. The lists stay published; nothing in them may ever be valid again.
func (f *fsck) tellLost(ctx context.Context) error {
	files, _, err := gitrepo.Read(ctx, f.remote, f.config.Git.Folder)
	if err != nil {
		return f.unreadable(ctx, "git.unreadable", f.config.Git.Where(), fixRepository, err)
	}
	for _, id := range f.issuersInOrder() {
		book := f.books.Issuers[id]
		issuer, err := x509.ParseCertificate(book.Certificate)
		if err != nil {
			return fmt.Errorf("reading the certificate of %s on the log: %w", id, err)
		}
		der := files[string(id)+".crl"]
		published, err := list.Parse(der)
		if err != nil || published.Verify(issuer) != nil {
			continue // it proves nothing
		}
		if _, known := book.Find(cert.SHA256(der)); known {
			continue
		}
		f.violation("lost.list", string(id), fixLost, "list %s of %s is published, with %d entries, and the log does not know it",
			published.Number, published.ThisUpdate.Format(time.RFC3339), len(published.Entries))
		f.tellLostEntries(id, published)
	}
	return nil
}

func (f *fsck) tellLostEntries(id cert.Issuer, published *list.List) {
	if id == cert.Root {
		return // what the root revokes, CAs, is not in the books
	}
	for _, e := range published.Entries {
		switch c := f.books.Certificates[e.Serial]; {
		case c == nil:
			f.violation("lost.certificate", string(e.Serial), fixLost, "list %s says that it is revoked since %s (%s), and the log does not know that it was issued",
				published.Number, e.RevokedAt.Format(time.RFC3339), e.Reason)
		case c.State != audit.Revoked:
			f.violation("lost.revocation", string(e.Serial), fixLost, "list %s says that %s %s is revoked since %s (%s), and the log does not",
				published.Number, c.Purpose, c.CN, e.RevokedAt.Format(time.RFC3339), e.Reason)
		}
	}
}
