package site

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/crl/gitrepo"
	"github.com/chancery-ca/chancery/crl/list"
)

// checkGit looks at what consumers would pull now.
func (f *fsck) checkGit(ctx context.Context) error {
	if f.remote == nil {
		return nil
	}
	files, at, err := gitrepo.Read(ctx, f.remote, f.config.Git.Folder)
	if err != nil {
		return f.unreadable(ctx, "git.unreadable", f.config.Git.Where(), fixRepository, err)
	}
	t := tip{files: files, commit: at.Commit}
	for _, id := range f.issuersInOrder() {
		book := f.books.Issuers[id]
		c, err := x509.ParseCertificate(book.Certificate)
		if err != nil {
			return fmt.Errorf("reading the certificate of %s on the log: %w", id, err)
		}
		t.chain = append(t.chain, c)
		if signed, ok := f.checkGitList(id, book, c, files[string(id)+".crl"]); ok {
			t.good = append(t.good, files[string(id)+".crl"])
			t.covers = max(t.covers, signed.Index+1)
			f.checkGitCopies(t, id)
		}
		f.checkGitFile(t, "ca/"+string(id)+".pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	f.checkGitWhole(t)
	return nil
}

// tip is what consumers would pull.
type tip struct {
	files  gitrepo.Files
	commit string
	chain  []*x509.Certificate
	good   [][]byte // lists that are what they should be, in the order of the chain
	covers int64    // leaves that the checkpoint beside them has to cover
}

// checkGitFile compares a file that consumers read with what the service writes.
func (f *fsck) checkGitFile(t tip, path string, want []byte) {
	if have, there := t.files[path]; !there {
		f.violation("git.file", path, fixGit, "it is not at the tip, commit %s", t.commit)
	} else if !bytes.Equal(have, want) {
		f.violation("git.file", path, fixGit, "at the tip, commit %s, it is not what the service writes", t.commit)
	}
}

// checkGitCopies looks for a list in its other forms: PEM, and the name that OpenSSL looks for.
func (f *fsck) checkGitCopies(t tip, id cert.Issuer) {
	text := list.EncodePEM(t.good[len(t.good)-1])
	f.checkGitFile(t, string(id)+".crl.pem", text)
	for path, content := range t.files {
		if strings.HasPrefix(path, "rehash/") && bytes.Equal(content, text) {
			return
		}
	}
	f.violation("git.file", "rehash/", fixGit, "at the tip, commit %s, no file in it is the list of %s", t.commit, id)
}

// checkGitWhole looks at the files that cover all the lists together.
func (f *fsck) checkGitWhole(t tip) {
	if err := list.CheckBundle(t.files["bundle.crl.pem"], t.chain, f.store.Now()); err != nil {
		f.violation("git.bundle", "commit "+t.commit, fixGit, "consumers would refuse bundle.crl.pem: %v", err)
	} else if len(t.good) == len(t.chain) && !bytes.Equal(t.files["bundle.crl.pem"], list.EncodeBundle(t.good...)) {
		f.violation("git.bundle", "commit "+t.commit, fixGit, "bundle.crl.pem holds other lists than the files beside it")
	}
	var chain []byte
	for _, c := range t.chain {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	f.checkGitFile(t, "ca/chain.pem", chain)
	checkpoint, err := audit.OpenCheckpoint(t.files["checkpoint"], f.books.Log.LogKey)
	switch {
	case err != nil:
		f.violation("git.checkpoint", "commit "+t.commit, fixGit, "the checkpoint at the tip: %v", err)
	case checkpoint.Size < t.covers:
		f.violation("git.checkpoint", "commit "+t.commit, fixGit, "the checkpoint at the tip covers %d leaves, and the lists beside it take %d", checkpoint.Size, t.covers)
	}
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
// published before, and holds every revocation that is not on its way. It is good if the log knows it.
func (f *fsck) checkGitList(id cert.Issuer, book *audit.IssuerBook, issuer *x509.Certificate, der []byte) (audit.Signed, bool) {
	if der == nil {
		f.violation("git.list", string(id), fixGit, "there is no %s.crl at the tip", id)
		return audit.Signed{}, false
	}
	parsed, err := list.Parse(der)
	if err == nil {
		err = parsed.Verify(issuer)
	}
	if err != nil {
		f.violation("git.list", string(id), fixGit, "the list at the tip: %v", err)
		return audit.Signed{}, false
	}
	signed, known := book.Find(cert.SHA256(der))
	if !known {
		f.violation("git.list_unknown", string(id), fixGitAhead, "list %s at the tip is genuine and the log does not know it", parsed.Number)
		return audit.Signed{}, false
	}
	if published, ok := new(big.Int).SetString(book.PublishedNumber, 10); ok && parsed.Number.Cmp(published) < 0 {
		f.violation("git.list_older", string(id), fixGit, "list %s is at the tip, and list %s was published before", parsed.Number, published)
	}
	if now := f.store.Now(); now.After(parsed.NextUpdate) {
		fix := fixWait
		if id == cert.Root {
			fix = "sign the root's next list with chancery root-crl sign, where the root key is, and install it here with chancery root-crl install"
		}
		f.violation("git.list_expired", string(id), fix, "list %s expired at %s", parsed.Number, parsed.NextUpdate.Format(time.RFC3339))
	}
	f.checkGitEntries(id, parsed)
	return signed, true
}

// checkGitEntries compares the entries of a list at the tip with the revocations on the log.
func (f *fsck) checkGitEntries(id cert.Issuer, parsed *list.List) {
	for serial, c := range f.books.Certificates {
		if c.Issuer != id || c.State != audit.Revoked {
			continue
		}
		entry, held := parsed.Find(serial)
		switch {
		case held && (entry.RevokedAt.After(c.RevokedAt) || entry.Reason != c.Reason) && !f.owesList(id):
			f.violation("git.entry", string(serial), fixGit, "list %s says revoked at %s (%s), the log at %s (%s)", parsed.Number,
				entry.RevokedAt.Format(time.RFC3339), entry.Reason, c.RevokedAt.Format(time.RFC3339), c.Reason)
		case !held && !f.owesList(id) && !f.dropped(c, parsed):
			f.violation("git.entry", string(serial), fixGit, "revoked, and not in list %s", parsed.Number)
		}
	}
	if id == cert.Root {
		return // what the root revokes, CAs, is not in the books
	}
	for _, e := range parsed.Entries {
		if c := f.books.Certificates[e.Serial]; c == nil || c.Issuer != id || c.State != audit.Revoked {
			f.violation("git.entry", string(e.Serial), fixGit, "in list %s, and the log does not say that it is revoked", parsed.Number)
		}
	}
}

// dropped tells whether an entry may have left: the certificate expired long ago.
func (f *fsck) dropped(c *audit.Certificate, l *list.List) bool {
	return l.ThisUpdate.After(c.NotAfter.Add(list.KeepAfterExpiry))
}
