package site

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/audit/review"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/crl/gitrepo"
	"github.com/chancery-ca/chancery/ldapsync"
	"github.com/chancery-ca/chancery/store"
)

// Finding is one thing that fsck has to say. Pending ones are on their way and no fault.
type Finding struct {
	Code    string `json:"code"` // stable
	Pending bool   `json:"pending,omitempty"`
	Subject string `json:"subject"`
	Reason  string `json:"reason"`
	Fix     string `json:"fix"`
}

// FsckReport is what fsck looked at and found.
type FsckReport struct {
	Leaves       int64     `json:"leaves"`
	Certificates int       `json:"certificates"`
	Revoked      int       `json:"revoked"`
	Checkpoints  int       `json:"checkpoints"` // seen in git that agree with the log
	Findings     []Finding `json:"findings"`
}

// Violations counts the findings that are faults.
func (r FsckReport) Violations() int {
	n := 0
	for _, f := range r.Findings {
		if !f.Pending {
			n++
		}
	}
	return n
}

// quietTries is how often fsck looks again because the service went on while it looked.
const quietTries = 5

// Fsck compares store, log, key room, directory and git with one another. It changes nothing. The
// service may run meanwhile. Without the key room it fails with signer.ErrUnreachable.
func Fsck(ctx context.Context, c Config) (FsckReport, error) {
	for try := 1; ; try++ {
		report, moved, err := fsckOnce(ctx, c)
		if err != nil || !moved || report.Violations() == 0 || try == quietTries {
			return report, err
		}
		select {
		case <-ctx.Done():
			return report, ctx.Err()
		case <-time.After(time.Duration(try) * 200 * time.Millisecond):
		}
	}
}

// fsck is one look.
type fsck struct {
	config  Config
	store   *store.Store
	room    *signer.Reader
	before  signer.State // of the room, from before the log was read
	books   *audit.Books
	debts   map[string]store.Debt // by topic and key
	remote  *gitrepo.Local
	history *review.History
	report  FsckReport
}

func fsckOnce(ctx context.Context, c Config) (report FsckReport, moved bool, err error) {
	room, err := signer.DialReader(ctx, c.KeyRoom)
	if err != nil {
		return report, false, err
	}
	defer room.Close()
	remote, err := gitrepo.OpenLocal(c.Git.Repository, c.Git.Branch)
	if err != nil {
		return report, false, err
	}
	// The history first: what it holds, the log that is opened after it must hold too.
	history, err := review.ReadHistory(ctx, remote, c.Git.Folder)
	if err != nil {
		return report, false, err
	}
	s, err := store.OpenReader(ctx, c.StorePath(), time.Now)
	if err != nil {
		return report, false, err
	}
	f := &fsck{
		config: c, store: s, room: room, before: room.Hello().State, remote: remote, history: history,
		report: FsckReport{Findings: []Finding{}},
	}
	err = f.look(ctx)
	if err == nil {
		moved, err = f.moved(ctx)
	}
	return f.report, moved, errors.Join(err, s.Close())
}

// moved tells whether the service did something while fsck looked, so that what it compared may be of
// two moments.
func (f *fsck) moved(ctx context.Context) (bool, error) {
	again, err := signer.DialReader(ctx, f.config.KeyRoom)
	if err != nil {
		return false, err
	}
	defer again.Close()
	s, err := store.OpenReader(ctx, f.config.StorePath(), time.Now)
	if err != nil {
		return false, err
	}
	size, _ := s.Head()
	return again.Hello().State.Sequence != f.before.Sequence || size != f.report.Leaves, s.Close()
}

func (f *fsck) violation(code, subject, fix, format string, args ...any) {
	f.report.Findings = append(f.report.Findings, Finding{Code: code, Subject: subject, Reason: fmt.Sprintf(format, args...), Fix: fix})
}

func (f *fsck) pending(code, subject, fix, format string, args ...any) {
	f.report.Findings = append(f.report.Findings, Finding{Code: code, Pending: true, Subject: subject, Reason: fmt.Sprintf(format, args...), Fix: fix})
}

// What an operator can do.
const (
	fixLog       = "restore the store from a backup that verifies, then run chancery recover"
	fixRoomOld   = "put back the newest copy of the key room; nothing is signed until then"
	fixStoreOld  = "stop the daemon and run chancery recover"
	fixRows      = "the rows were changed outside the service: restore the store from a backup that verifies, then run chancery recover"
	fixDirectory = "the next sweep repairs it; if it comes back, find out who else writes there"
	fixGit       = "the service puts its files back within minutes; find out who else writes to the folder"
	fixWait      = "nothing, if it is gone in a minute; otherwise the service's log says what is in the way"
)

func (f *fsck) look(ctx context.Context) error {
	found, err := f.store.Check(ctx)
	if err != nil {
		return err
	}
	for _, failure := range found {
		f.violation("store.damaged", f.config.StorePath(), fixLog, "%v", failure)
	}
	if ok, err := f.readLog(ctx); err != nil || !ok {
		return err
	}
	f.debts = make(map[string]store.Debt)
	debts, err := f.store.Debts(ctx)
	if err != nil {
		return err
	}
	for _, d := range debts {
		f.debts[string(d.Topic)+" "+d.Key] = d
		f.pending("owed", string(d.Topic)+" "+d.Key, fixWait, "owed since %s, %d attempts failed%s", d.Since.Format(time.RFC3339), d.Attempts, colon(d.LastError))
	}
	for _, check := range []func(context.Context) error{f.checkRows, f.checkLists, f.checkRoom, f.checkDirectory, f.checkGit} {
		if err := check(ctx); err != nil {
			return err
		}
	}
	return nil
}

func colon(s string) string {
	if s == "" {
		return ""
	}
	return ": " + s
}

// readLog verifies the log from its first leaf, with everything that git has seen of it, and takes up
// what it implies.
func (f *fsck) readLog(ctx context.Context) (bool, error) {
	key, err := f.config.LogKey()
	if err != nil {
		return false, err
	}
	report, err := review.Verify(ctx, review.Source{Log: f.store, LogKey: key, History: f.history})
	if err != nil {
		return false, err
	}
	f.books = report.Books
	f.report.Leaves, f.report.Checkpoints = report.Leaves, report.Checkpoints
	for _, finding := range report.Findings {
		f.violation("git."+finding.Code, "commit "+finding.Commit, fixGit, "%s", finding.Reason)
	}
	if c := report.Contradiction; c != nil {
		f.violation("log."+c.Code, "log", fixLog, "%v", c)
		return false, nil
	}
	return true, nil
}

// checkRows compares every row with what the log implies.
func (f *fsck) checkRows(ctx context.Context) error {
	seen := make(map[cert.Serial]bool)
	q := store.Query{Limit: 500}
	for {
		rows, err := f.store.Find(ctx, q)
		if err != nil {
			return err
		}
		for _, row := range rows {
			seen[row.Serial] = true
			f.checkRow(row)
		}
		if len(rows) < q.Limit {
			break
		}
		q.After = rows[len(rows)-1].Serial
	}
	for serial, c := range f.books.Certificates {
		if !seen[serial] {
			f.violation("store.row_missing", string(serial), fixRows, "leaf %d announces it and the store does not have it", c.Intent)
		}
	}
	return nil
}

func (f *fsck) checkRow(row store.Certificate) {
	c := f.books.Certificates[row.Serial]
	if c == nil {
		if row.Intent < f.report.Leaves {
			f.violation("store.row_unknown", string(row.Serial), fixRows, "the store has it and the log does not")
		}
		return
	}
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
	switch {
	case string(row.State) != string(c.State):
		f.violation("store.row_differs", string(row.Serial), fixRows, "the store says %s, the log %s", row.State, c.State)
	case row.Issuer != c.Issuer || row.Purpose != c.Purpose || row.CN != c.CN || row.TBSSHA256 != c.TBSSHA256 || row.Intent != c.Intent ||
		row.Caller != c.Caller || row.RequestID != c.RequestID || !row.NotAfter.Equal(c.NotAfter):
		f.violation("store.row_differs", string(row.Serial), fixRows, "the row is not what leaf %d announces", c.Intent)
	case c.Fingerprint != "" && cert.FingerprintOf(row.DER) != c.Fingerprint:
		f.violation("store.row_differs", string(row.Serial), fixRows, "the certificate in the store is not the one that leaf %d names", c.Ended)
	case c.State == audit.Revoked && (!row.RevokedAt.Equal(c.RevokedAt) || row.Reason != c.Reason):
		f.violation("store.row_differs", string(row.Serial), fixRows, "the store says revoked at %s (%s), the log at %s (%s)",
			row.RevokedAt.Format(time.RFC3339), row.Reason, c.RevokedAt.Format(time.RFC3339), c.Reason)
	}
}

// checkRoom compares the room's own account with the log: nothing is signed that the log does not
// know, and neither is older than the other says.
func (f *fsck) checkRoom(ctx context.Context) error {
	hello, s := f.room.Hello(), f.before
	if hello.Room != f.books.Log.Room || hello.Origin != f.books.Log.Origin {
		f.violation("room.other", hello.Room, fixRoomOld, "the log is that of room %s", f.books.Log.Room)
		return nil
	}
	if s.Size > f.report.Leaves {
		f.violation("store.behind", "store", fixStoreOld, "the key room has read %d leaves, the store holds %d", s.Size, f.report.Leaves)
		return nil
	}
	root, err := f.store.Root(ctx, s.Size)
	if err != nil {
		return err
	}
	if hex.EncodeToString(root[:]) != s.Root {
		f.violation("room.fork", hello.Room, fixRoomOld, "the key room computed another root over %d leaves than the store", s.Size)
		return nil
	}
	if told := f.books.Rooms[hello.Room]; told.Sequence > s.Sequence {
		f.violation("room.behind", hello.Room, fixRoomOld, "the log has seen record %d of its journal, which ends at %d", told.Sequence, s.Sequence)
		return nil
	}
	return f.countSignatures()
}

// countSignatures checks that the room signed exactly what the log says, one by one if the numbers
// differ.
func (f *fsck) countSignatures() error {
	done, unanswered := int64(0), int64(0)
	for _, c := range f.books.Certificates {
		switch c.State {
		case audit.Live, audit.Revoked:
			done++
		case audit.Open:
			der, err := f.room.Lookup(c.Intent)
			var refusal *signer.Refusal
			if err != nil && !errors.As(err, &refusal) { // an intent the room has not read yet is not signed
				return err
			}
			if der != nil {
				unanswered++
			}
		}
	}
	if f.before.Certificates != done+unanswered {
		f.violation("room.count", f.room.Hello().Room, fixRoomOld, "the key room signed %d certificates, the log knows %d", f.before.Certificates, done+unanswered)
	}
	if abandoned := f.books.Events["issue.abandoned"]; f.before.Voided < abandoned {
		f.violation("room.count", f.room.Hello().Room, fixRoomOld, "the key room voided %d serial numbers, the log abandoned %d", f.before.Voided, abandoned)
	}
	if announced := f.books.Events["crl.intent"]; f.before.Lists > announced {
		f.violation("room.count", f.room.Hello().Room, fixRoomOld, "the key room signed %d lists, the log announced %d", f.before.Lists, announced)
	}
	return nil
}

// checkDirectory compares every name with its entry.
func (f *fsck) checkDirectory(ctx context.Context) error {
	d := f.config.Directory
	if d == nil {
		return nil
	}
	ldif, err := ldapsync.OpenLDIF(d.URL, false, d.Base)
	if err != nil {
		return err
	}
	loop := &ldapsync.Loop{Store: f.store, Directory: ldif, Now: time.Now}
	err = loop.Compare(ctx, func(drift ldapsync.Drift) {
		key := string(drift.Purpose) + "/" + drift.Key
		if _, owed := f.debts[string(store.Directory)+" "+key]; owed {
			return
		}
		if drift.Err != nil {
			f.violation("directory.drift", key, fixDirectory, "%v", drift.Err)
			return
		}
		f.violation("directory.drift", key, fixDirectory, "its entry lacks %v and still has %v", drift.Missing, drift.Extra)
	})
	return errors.Join(err, ldif.Close())
}
