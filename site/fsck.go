package site

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/audit/review"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/crl/gitrepo"
	"github.com/chancery-ca/chancery/ldapsync"
	"github.com/chancery-ca/chancery/store"
)

// Finding is one thing that fsck or doctor has to say. Pending ones are on their way and no fault.
type Finding struct {
	Code     string   `json:"code"`               // stable
	Pending  bool     `json:"pending,omitempty"`  // only of fsck
	Severity Severity `json:"severity,omitempty"` // only of doctor
	Subject  string   `json:"subject"`
	Reason   string   `json:"reason"`
	Fix      string   `json:"fix"`
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
	remote  gitrepo.Remote        // nil if it cannot be read, and then history too
	history *review.History
	seen    int64 // leaves that the largest checkpoint in git covers
	report  FsckReport
}

func fsckOnce(ctx context.Context, c Config) (report FsckReport, moved bool, err error) {
	room, err := signer.DialReader(ctx, c.KeyRoom)
	if err != nil {
		return report, false, err
	}
	defer room.Close()
	f := &fsck{config: c, room: room, before: room.Hello().State, report: FsckReport{Findings: []Finding{}}}
	// The history first: what it holds, the log that is opened after it must hold too.
	if err := f.readHistory(ctx); err != nil {
		return report, false, err
	}
	if f.store, err = store.OpenReader(ctx, c.StorePath(), time.Now); err != nil {
		err = f.unreadable(ctx, "store.unreadable", c.StorePath(), fixLog, err)
		return f.report, false, err
	}
	err = f.look(ctx)
	if err == nil {
		moved, err = f.moved(ctx)
	}
	return f.report, moved, errors.Join(err, f.store.Close())
}

// unreadable makes a finding of what cannot be read because it is damaged or gone. What says nothing
// about it stays an error: the check was cut short, the file is not for this user, or the key room is
// not there.
func (f *fsck) unreadable(ctx context.Context, code, subject, fix string, err error) error {
	if ctx.Err() != nil || errors.Is(err, fs.ErrPermission) || errors.Is(err, signer.ErrUnreachable) {
		return err
	}
	f.violation(code, subject, fix, "%v", err)
	return nil
}

func (f *fsck) readHistory(ctx context.Context) error {
	remote, err := f.config.Git.Open()
	if err == nil {
		f.history, err = review.ReadHistory(ctx, remote, f.config.Git.Folder)
	}
	if err != nil {
		return f.unreadable(ctx, "git.unreadable", f.config.Git.Where(), fixRepository, err)
	}
	f.remote = remote
	return nil
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
	fixGitAhead  = "stop the daemon and run chancery recover; if nothing was missing, the key room is an old copy too: docs/BACKUP.md"
	fixRows      = "the rows were changed outside the service: restore the store from a backup that verifies, then run chancery recover"
	fixDirectory = "the next sweep repairs it; if it comes back, find out who else writes there"
	fixGit       = "the service puts its files back within minutes; find out who else writes to the folder"

	fixRepository = "mend the repository, or put back a clone of it; any host that pulls it has one"
	fixDirFile    = "put the directory back; the service brings its own values up to date"
	fixWait       = "nothing, if it is gone in a minute; otherwise the service's log says what is in the way"
)

func (f *fsck) look(ctx context.Context) error {
	damaged := func(err error) error {
		return f.unreadable(ctx, "store.damaged", f.config.StorePath(), fixLog, err)
	}
	found, err := f.store.Check(ctx)
	for _, failure := range append(found, err) {
		if failure == nil {
			continue
		}
		if err := damaged(failure); err != nil {
			return err
		}
	}
	key, err := f.config.LogKey()
	if err != nil {
		return err
	}
	if ok, err := f.readLog(ctx, key); err != nil {
		return damaged(err)
	} else if !ok {
		return nil
	}
	for _, check := range []func(context.Context) error{f.readDebts, f.checkRoom, f.checkBooks, f.checkRows, f.checkLists, f.checkRootList, f.checkDirectory, f.checkGit} {
		if err := check(ctx); err != nil {
			if err := damaged(err); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *fsck) readDebts(ctx context.Context) error {
	f.debts = make(map[string]store.Debt)
	debts, err := f.store.Debts(ctx)
	for _, d := range debts {
		f.debts[string(d.Topic)+" "+d.Key] = d
		f.pending("owed", string(d.Topic)+" "+d.Key, fixWait, "owed since %s, %d attempts failed%s", d.Since.Format(time.RFC3339), d.Attempts, colon(d.LastError))
	}
	return err
}

func colon(s string) string {
	if s == "" {
		return ""
	}
	return ": " + s
}

// readLog verifies the log from its first leaf, with everything that git has seen of it, and takes up
// what it implies.
func (f *fsck) readLog(ctx context.Context, key string) (bool, error) {
	report, err := review.Verify(ctx, review.Source{Log: f.store, LogKey: key, History: f.history})
	if err != nil {
		return false, err
	}
	f.books, f.seen = report.Books, report.Witnessed
	f.report.Leaves, f.report.Checkpoints = report.Leaves, report.Checkpoints
	// What others once committed in the place of our files stays in the history for ever. It is audit
	// verify that tells of it; here the tip counts.
	if c := report.Contradiction; c != nil {
		fix := fixLog
		switch {
		case c.Code != audit.LogShort:
		case f.before.Size > report.Leaves:
			fix = fixStoreOld // the room still has what is missing
		default:
			f.violation(c.Code, "log", fixLost, "%v", c)
			return false, f.tellLost(ctx)
		}
		f.violation("log."+strings.TrimPrefix(c.Code, "log."), "log", fix, "%v", c)
		return false, nil
	}
	return true, nil
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
	told := f.books.Rooms[hello.Room]
	switch {
	case hex.EncodeToString(root[:]) != s.Root:
		f.violation("room.fork", hello.Room, fixRoomOld, "the key room computed another root over %d leaves than the store", s.Size)
	case told.Sequence > s.Sequence:
		f.violation("room.behind", hello.Room, fixRoomOld, "the log has seen record %d of its journal, which ends at %d", told.Sequence, s.Sequence)
	case told.Sequence == s.Sequence && told.Journal != s.Journal:
		f.violation("room.fork", hello.Room, fixRoomOld, "the log has seen another record %d of its journal", s.Sequence)
	case f.seen > s.Size:
		f.violation("room.behind", hello.Room, fixRoomOld, "a checkpoint that it signed covers %d leaves, and it has read %d", f.seen, s.Size)
	default:
		return f.countSignatures()
	}
	return nil
}

// countSignatures checks that the room signed exactly what the log says: by number, and one by one if
// the numbers differ.
func (f *fsck) countSignatures() error {
	room := f.room.Hello().Room
	done, unanswered := int64(0), int64(0)
	for _, c := range f.books.Certificates {
		switch c.State {
		case audit.Live, audit.Revoked:
			done++
		case audit.Open:
			der, err := f.lookup(c)
			if err != nil {
				return err
			}
			if der != nil {
				unanswered++
			}
		}
	}
	if f.before.Certificates != done+unanswered {
		f.violation("room.count", room, fixRoomOld, "the key room signed %d certificates, the log knows %d", f.before.Certificates, done+unanswered)
		if err := f.nameUnsigned(); err != nil {
			return err
		}
	}
	if abandoned := f.books.Events["issue.abandoned"]; f.before.Voided < abandoned {
		f.violation("room.count", room, fixRoomOld, "the key room voided %d serial numbers, the log abandoned %d", f.before.Voided, abandoned)
	}
	if announced, signed := f.books.Events["crl.intent"], f.books.Events["crl.signed"]; f.before.Lists > announced || f.before.Lists < signed {
		f.violation("room.count", room, fixRoomOld, "the key room signed %d lists, the log announced %d and had %d signed", f.before.Lists, announced, signed)
	}
	return nil
}

// lookup gives what the room signed for a certificate of the log; nil for nothing. An intent that the
// room has not read yet is not signed.
func (f *fsck) lookup(c *audit.Certificate) ([]byte, error) {
	der, err := f.room.Lookup(c.Intent)
	var refusal *signer.Refusal
	if errors.As(err, &refusal) {
		return nil, nil
	}
	return der, err
}

// nameUnsigned names the certificates of the log that the room knows nothing of.
func (f *fsck) nameUnsigned() error {
	for serial, c := range f.books.Certificates {
		if c.State != audit.Live && c.State != audit.Revoked {
			continue
		}
		der, err := f.lookup(c)
		if err != nil {
			return err
		}
		if der == nil || cert.FingerprintOf(der) != c.Fingerprint {
			f.violation("room.unsigned", string(serial), fixRoomOld, "leaf %d says that the key room signed it, and it is not in its journal", c.Ended)
		}
	}
	return nil
}

// checkDirectory compares every name with its entry.
func (f *fsck) checkDirectory(ctx context.Context) error {
	d := f.config.Directory
	if d == nil {
		return nil
	}
	looked := *d
	looked.Create = false
	entries, err := looked.open()
	if err != nil {
		return err
	}
	loop := &ldapsync.Loop{Store: f.store, Directory: entries, Now: time.Now}
	// Of a damaged store it has been said; the directory is not what cannot be read then.
	unreadable := slices.ContainsFunc(f.report.Findings, func(found Finding) bool { return found.Code == "store.damaged" })
	err = loop.Compare(ctx, func(drift ldapsync.Drift) {
		key := string(drift.Purpose) + "/" + drift.Key
		if drift.Err != nil && !answered(drift.Err) {
			if !unreadable {
				f.violation("directory.unreadable", d.Where(), fixDirFile, "%v", drift.Err)
			}
			unreadable = true // once is enough: every other name says the same
			return
		}
		if _, owed := f.debts[string(store.Directory)+" "+key]; owed {
			return
		}
		if drift.Err != nil {
			f.violation("directory.drift", key, fixDirectory, "%v", drift.Err)
			return
		}
		if len(drift.Missing) > 0 {
			f.violation("directory.drift", key, fixDirectory, "its entry lacks %v", drift.Missing)
		}
		if len(drift.Extra) > 0 {
			f.violation("directory.drift", key, fixDirectory, "its entry still has %v", drift.Extra)
		}
	})
	return errors.Join(err, entries.Close())
}

// answered tells whether an error is what the directory says of one entry, and not that it is down.
func answered(err error) bool {
	return errors.Is(err, ldapsync.ErrNoEntry) || errors.Is(err, ldapsync.ErrManyEntries) || errors.Is(err, ldapsync.ErrRefused)
}
