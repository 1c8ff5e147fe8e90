package site

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/store"
)

// pageSize is how many rows of the books fsck has in memory at once.
const pageSize = 256

// checkBooks reads the log once more and compares what each leaf announces with the row that it made,
// and with the request id that it spent.
func (f *fsck) checkBooks(ctx context.Context) error {
	return eachLeaf(ctx, f.store, 0, f.report.Leaves, nil, func(index int64, leaf audit.Leaf) error {
		return f.checkLeaf(ctx, index, leaf)
	})
}

func (f *fsck) checkLeaf(ctx context.Context, index int64, leaf audit.Leaf) error {
	spent := store.Request{Caller: leaf.Actor.Name, Index: index}
	switch e := leaf.Event.(type) {
	case *audit.IssueIntent:
		want, err := announced(leaf, e)
		if err != nil {
			return err
		}
		want.Intent = index
		if err := f.checkIntent(ctx, want); err != nil || f.books.Certificates[e.Serial].State == audit.Abandoned {
			return err
		}
		spent.ID, spent.Method, spent.BodySHA256, spent.Serial = e.RequestID, store.IssueMethod, e.BodySHA256, e.Serial
	case *audit.RevokeDone:
		spent.ID, spent.Method, spent.BodySHA256 = e.RequestID, ca.RevokeMethod, e.BodySHA256
	case *audit.ReleaseDone:
		spent.ID, spent.Method, spent.BodySHA256 = e.RequestID, ca.ReleaseMethod, e.BodySHA256
	default:
		return nil
	}
	have, found, err := f.store.Request(ctx, spent.Caller, spent.ID)
	if err == nil && (!found || have != spent) {
		f.violation("store.request_differs", spent.Caller+" "+spent.ID, fixRows,
			"leaf %d spends this request id, and the store does not say so: it could be spent again", index)
	}
	return err
}

func (f *fsck) checkIntent(ctx context.Context, want store.Certificate) error {
	rows, err := f.store.Find(ctx, store.Query{Serial: want.Serial})
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		f.violation("store.row_missing", string(want.Serial), fixRows, "leaf %d announces it and the store does not have it", want.Intent)
		return nil
	}
	f.checkRow(rows[0], want, f.books.Certificates[want.Serial])
	return nil
}

// checkRow compares a row with what the log announced, and with what became of it.
func (f *fsck) checkRow(row, announced store.Certificate, c *audit.Certificate) {
	switch row.State {
	case store.StateLive:
		f.report.Certificates++
	case store.StateRevoked:
		f.report.Certificates++
		f.report.Revoked++
	case store.StateOpen:
		if f.store.Now().After(row.Deadline.Add(time.Minute)) {
			f.pending("issue.open", string(row.Serial), fixWait, "its intent is open since %s", row.Deadline.Format(time.RFC3339))
		}
	}
	differs := func(format string, args ...any) {
		f.violation("store.row_differs", string(row.Serial), fixRows, format, args...)
	}
	if columns := differences(row, announced); len(columns) > 0 {
		differs("the row is not what leaf %d announces: %s", c.Intent, strings.Join(columns, ", "))
	}
	switch {
	case string(row.State) != string(c.State) || row.RevokeAsked != c.RevokeAsked || row.Done != c.Ended:
		differs("the store says %s since leaf %d, the log %s since leaf %d", row.State, row.Done, c.State, c.Ended)
	case c.Fingerprint != "" && cert.FingerprintOf(row.DER) != c.Fingerprint:
		differs("the certificate in the store is not the one that leaf %d names", c.Ended)
	case row.Sealed != nil && cert.SHA256(row.Sealed) != c.SealedSHA256:
		differs("the sealed secrets in the store are not those that leaf %d names", c.Intent)
	case c.State == audit.Revoked && (!row.RevokedAt.Equal(c.RevokedAt) || row.Reason != c.Reason):
		differs("the store says revoked at %s (%s), the log at %s (%s)",
			row.RevokedAt.Format(time.RFC3339), row.Reason, c.RevokedAt.Format(time.RFC3339), c.Reason)
	case c.RevokeAsked && row.Reason != c.Reason:
		differs("the store says that it is to be revoked as %s, the log as %s", row.Reason, c.Reason)
	}
}

// differences names what an intent fixes for good and the row has otherwise.
func differences(row, want store.Certificate) []string {
	var columns []string
	for _, column := range []struct {
		name string
		same bool
	}{
		{"intent", row.Intent == want.Intent}, {"issuer", row.Issuer == want.Issuer}, {"purpose", row.Purpose == want.Purpose},
		{"cn", row.CN == want.CN}, {"name", row.Key == want.Key}, {"sans", sameSANs(row.SANs, want.SANs)},
		{"key_type", row.KeyType == want.KeyType}, {"caller", row.Caller == want.Caller},
		{"request_id", row.RequestID == want.RequestID}, {"body_sha256", row.BodySHA256 == want.BodySHA256},
		{"not_before", row.NotBefore.Equal(want.NotBefore)}, {"not_after", row.NotAfter.Equal(want.NotAfter)},
		{"deadline", row.Deadline.Equal(want.Deadline)}, {"spki_sha256", row.SPKISHA256 == want.SPKISHA256},
		{"tbs_sha256", row.TBSSHA256 == want.TBSSHA256}, {"entry", row.Entry == want.Entry},
	} {
		if !column.same {
			columns = append(columns, column.name)
		}
	}
	return columns
}

func sameSANs(a, b cert.SANs) bool {
	return slices.Equal(a.DNS, b.DNS) && slices.Equal(a.IP, b.IP) && slices.Equal(a.Email, b.Email) && slices.Equal(a.URI, b.URI)
}

// checkRows looks for rows that no leaf announces.
func (f *fsck) checkRows(ctx context.Context) error {
	q := store.Query{Limit: pageSize}
	for {
		rows, err := f.store.Find(ctx, q)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if f.books.Certificates[row.Serial] == nil && row.Intent < f.report.Leaves {
				f.violation("store.row_unknown", string(row.Serial), fixRows, "the store has it and the log does not")
			}
		}
		if len(rows) < q.Limit {
			return nil
		}
		q.After = rows[len(rows)-1].Serial
	}
}

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
		if id != cert.Root && len(book.Lists) > 0 {
			f.checkList(book, kept[id])
		}
	}
	return nil
}

// checkList allows for a store that recovered and has not signed again: its row is old, and owed.
func (f *fsck) checkList(book *audit.IssuerBook, row store.List) {
	differs := func(format string, args ...any) {
		f.violation("store.list_differs", string(book.ID), fixRows, format, args...)
	}
	last := book.Lists[len(book.Lists)-1]
	switch {
	case row.Number != last.Number:
		if !f.owesList(book.ID) {
			differs("the log's last list is number %s, the store's number %q", last.Number, row.Number)
		}
		return
	case row.SHA256 != last.SHA256 || cert.SHA256(row.DER) != last.SHA256:
		differs("list %s in the store is not the one that was signed", row.Number)
	case !row.ThisUpdate.Equal(last.ThisUpdate) || !row.NextUpdate.Equal(last.NextUpdate) || row.Entries != last.Entries:
		differs("list %s in the store is said to be of %s to %s with %d entries, on the log of %s to %s with %d", row.Number,
			row.ThisUpdate.Format(time.RFC3339), row.NextUpdate.Format(time.RFC3339), row.Entries,
			last.ThisUpdate.Format(time.RFC3339), last.NextUpdate.Format(time.RFC3339), last.Entries)
	}
	if !f.owesList(book.ID) && row.PublishedNumber != book.PublishedNumber {
		differs("the log says that list %q is published, the store list %q", book.PublishedNumber, row.PublishedNumber)
	}
}
