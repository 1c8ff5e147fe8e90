package site

import (
	"errors"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/store"
)

// Alarm is one thing that is wrong now. Its code is also that of the log line, of the metric and of the
// page in the runbook.
type Alarm struct {
	Code     string    `json:"code"`
	Severity Severity  `json:"severity"`
	Part     string    `json:"dependency"`
	Subject  string    `json:"subject,omitempty"` // whose, where there are several; from the configuration
	Since    time.Time `json:"since"`
	Reason   string    `json:"reason"`
	Fix      string    `json:"fix"`

	stops bool // while it lasts, a call to issue fails
}

// The parts that alarms are about, in the order in which they are shown.
const (
	partStore     = "store"
	partKeyRoom   = "keyroom"
	partDirectory = "directory"
	partGit       = "git"
	partLists     = "lists"
	partCerts     = "certificates"
	partIssuing   = "issuing"
	partClock     = "clock"
	partConfig    = "config"
)

func alarmParts() []string {
	return []string{partStore, partKeyRoom, partDirectory, partGit, partLists, partCerts, partIssuing, partClock, partConfig}
}

// The codes of what is found by looking. What is found by doing has the codes of the log's lines.
const (
	codeStoreBroken   = "store.broken"
	codeStoreBusy     = "store.busy"
	codeStoreErrors   = "store.errors"
	codeStoreSpace    = "store.space"
	codeStoreUnread   = "store.unread"
	codeRoomAway      = "keyroom.unreachable"
	codeRoomOther     = "keyroom.other"
	codeRoomBehind    = "keyroom.behind"
	codeStoreBehind   = "store.behind"
	codeStoreFork     = "store.fork"
	codeClockBehind   = "clock.behind"
	codeListsLate     = "crl.late"
	codeDirectoryLate = "directory.late"
	codeDebtParked    = "directory.debt"
	codeDirectoryDown = "directory.down"
	codeSwept         = "directory.sweep"
)

// How long an alarm of a log line lasts after the last line. Debts are visited again after five minutes at
// most, git is looked at every five, and the directory swept every hour.
const (
	lastsLoop  = 6 * time.Minute
	lastsSweep = sweepEvery + 5*time.Minute
	// Nothing tries again by itself; a reload that is taken ends it.
	lastsConfig = 24 * time.Hour
	lastsDone   = time.Hour // of what is mended before it is logged, so that somebody sees it
)

// alarmKind is a row of the registry: everything that can be wrong.
type alarmKind struct {
	code     string
	part     string
	severity Severity // of deadlines, the worst
	stops    bool
	lasts    time.Duration // 0: no log line raises it
	reason   string
	fix      string
}

const (
	inTheLog      = "read the error in the daemon's log, under this code"
	inTheRoomsLog = "read the error in the key room's log, under this code"
)

// alarmKinds is the closed set of codes. Reasons and fixes hold nothing that a caller or a remote wrote,
// because whoever reaches the listener may read them.
func alarmKinds() []alarmKind {
	const w, c = SeverityWarning, SeverityCritical
	return []alarmKind{
		{codeStoreBroken, partStore, c, true, 0, "the store lost its database", "look at the disk of the state folder, then restart the daemon: it finds out what was committed"},
		{codeStoreBusy, partStore, c, true, 0, "a change waits for the database for longer than three seconds", "look for another program that has store.db open, and at the load of the disk"},
		{codeStoreErrors, partStore, c, true, 0, "the database engine failed within the last minute", "read the error in the daemon's log; a full or failing disk is the usual cause"},
		{codeStoreSpace, partStore, w, false, 0, "the disk of the state folder is nearly full", "make room: without it nothing is issued or revoked"},
		{codeStoreUnread, partStore, w, false, 0, "what is owed, or what ends when, cannot be read", "run chancery fsck on the installation's folder"},
		{codeRoomAway, partKeyRoom, c, true, 0, "the key room does not answer", "start chancery-keyroom, and read in its log why it ended"},
		{codeRoomOther, partKeyRoom, c, true, 0, "another key room answers at the socket, or one of another version", "start the key room of this installation, from the daemon's release"},
		{codeRoomBehind, partKeyRoom, c, true, 0, "the key room is an old copy", "put back its newest copy"},
		{codeStoreBehind, partKeyRoom, c, true, 0, "the store is older than the key room", "stop the daemon and run chancery recover"},
		{codeStoreFork, partKeyRoom, c, true, 0, "the store and the key room hold different logs", "restore the store that belongs to this key room"},
		{"delivery.destroy", partKeyRoom, c, false, 0, "a delivery key that should be destroyed is still on the key room's disk", "remove the file that the key room's log names under this code"},
		{"delivery.write", partKeyRoom, w, false, 0, "the key room's delivery keys are in its memory only; after its restart, retries get no secrets", "mend delivery_folder of keyroom.json: its space and its rights"},
		{"delivery.make", partKeyRoom, w, false, 0, "the key room cannot draw a new delivery key", inTheRoomsLog},
		{"delivery.lost", partKeyRoom, w, false, 0, "the key room could not use its delivery keys and made new ones; retries of issues before that get no secrets", "issue again for those who did not get their PKCS#12, and revoke the first one"},
		{codeClockBehind, partClock, w, false, 0, "the clock is behind the last record of the key room", "set the clock; check that it is synchronised"},
		{"systemd.watchdog", partStore, w, false, time.Minute, "systemd is given no sign of life, because the store's writer does not answer", "see the other alarms of the store; systemd restarts the daemon if it lasts"},
		{codeConfig, partConfig, w, false, lastsConfig, "chancery.yaml was read again and has a mistake; the one before stays in force", "run chancery config check, mend what it names, and reload"},

		{"issue.open", partIssuing, w, false, time.Minute, "a certificate whose answer was lost cannot be settled with the key room", inTheLog},
		{"issue.secrets", partIssuing, w, false, time.Minute, "sealed keys whose time is over are not deleted", inTheLog},

		{codeListsLate, partGit, w, false, 0, "lists are owed to git for longer than ten minutes; revocations do not take effect", "read the error in the daemon's log, under crl.publish or crl.sign"},
		{"crl.publish", partGit, w, false, lastsLoop, "the lists could not be brought to git", inTheLog},
		{"crl.sign", partGit, w, false, lastsLoop, "a list could not be signed", inTheLog},
		{"crl.books", partGit, c, false, lastsLoop, "the books cannot be asked which lists are owed", inTheLog},
		{"crl.witness", partGit, w, false, lastsLoop, "git could not be asked at the start whether the log is whole", "make git reachable: the next publication asks again"},
		{"crl.root", partLists, w, false, lastsLoop, "the root's list in the key room does not follow the one on the log", "install the newest one with chancery root-crl install"},
		{"crl.tampered", partGit, c, false, lastsDone, "somebody replaced a list in git; it was put back", "find out who can write to the repository, and close that"},

		{codeDirectoryLate, partDirectory, w, false, 0, "entries are owed to the directory for longer than ten minutes", "read the errors in the daemon's log, under the codes of the directory"},
		{codeDirectoryDown, partDirectory, w, false, lastsLoop, "the directory cannot be reached", "check the server, its certificate and the account that the daemon binds with"},
		{"directory.no_entry", partDirectory, w, false, lastsLoop, "a name has no entry in the directory any more", "chancery fsck names it; put the entry back"},
		{"directory.many_entries", partDirectory, w, false, lastsLoop, "a name has more than one entry in the directory", "chancery fsck names it; leave one"},
		{"directory.refused", partDirectory, w, false, lastsLoop, "the directory declined a change", "check its access rules and schema (deploy/ldap)"},
		{"directory.read_back", partDirectory, w, false, lastsLoop, "the directory took a change and does not show it", "check that the daemon writes to the server that it reads from"},
		{"directory.books", partDirectory, c, false, lastsLoop, "the books cannot be asked what is owed to the directory", inTheLog},
		{codeDebtParked, partDirectory, w, false, 0, "a debt names no place in the directory and is not visited any more", "run chancery fsck on the installation's folder"},
		{codeSwept, partDirectory, w, false, lastsSweep, "the directory could not be compared with the books as a whole", inTheLog},

		{codeExpiryService, partCerts, c, false, 0, "the service's own certificate ends soon", ""},
		{codeExpiryCaller, partCerts, c, false, 0, "the newest certificate of a caller ends soon", ""},
		{codeExpiryForeign, partCerts, c, false, 0, "a foreign CA ends soon, and then nobody comes in by it", ""},
		{codeExpiryIssuer, partCerts, c, false, 0, "the certificate of an issuing CA ends soon", ""},
		{codeExpiryRoot, partCerts, c, false, 0, "the root certificate ends soon", ""},
		{codeExpiryRootList, partLists, c, false, 0, "the root's list ends soon", ""},
		{codeExpiryList, partLists, c, false, 0, "a published list ends soon", ""},
	}
}

// alarm makes an alarm of a kind.
func (k alarmKind) alarm(since time.Time) Alarm {
	return Alarm{Code: k.code, Severity: k.severity, Part: k.part, Since: since, Reason: k.reason, Fix: k.fix, stops: k.stops}
}

// marks remember which alarms the log's lines raised, and when.
type marks struct {
	now   func() time.Time
	kinds map[string]alarmKind

	mu   sync.Mutex
	seen map[string]mark
}

type mark struct{ first, last time.Time }

func newMarks(now func() time.Time) *marks {
	m := &marks{now: now, kinds: make(map[string]alarmKind), seen: make(map[string]mark)}
	for _, k := range alarmKinds() {
		m.kinds[k.code] = k
	}
	return m
}

func (m *marks) raise(code string) {
	kind, known := m.kinds[code]
	if !known || kind.lasts == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now, at := m.now(), m.seen[code]
	if now.Sub(at.last) > kind.lasts {
		at.first = now
	}
	at.last = now
	m.seen[code] = at
}

// clear ends alarms whose work has succeeded since.
func (m *marks) clear(codes ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, code := range codes {
		delete(m.seen, code)
	}
}

// since tells when an alarm that is still on was raised first.
func (m *marks) since(kind alarmKind) (time.Time, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, ok := m.seen[kind.code]
	return at.first, ok && m.now().Sub(at.last) <= kind.lasts
}

// logWatch is told of every log line with a code, and passes nothing on: it stands beside the core that
// writes.
type logWatch struct {
	zapcore.LevelEnabler
	see  func(code string, err error)
	with []zapcore.Field
}

// watchLog gives a logger that tells see of each line of level warn or above that has the field code.
func watchLog(log *zap.Logger, see func(code string, err error)) *zap.Logger {
	watch := &logWatch{LevelEnabler: zapcore.WarnLevel, see: see}
	return log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core { return zapcore.NewTee(core, watch) }))
}

// With keeps fields for later lines.
func (w *logWatch) With(fields []zapcore.Field) zapcore.Core {
	return &logWatch{w.LevelEnabler, w.see, append(w.with[:len(w.with):len(w.with)], fields...)}
}

// Check takes every line that is grave enough.
func (w *logWatch) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if w.Enabled(e.Level) {
		return checked.AddCore(e, w)
	}
	return checked
}

// Write looks for the code.
func (w *logWatch) Write(_ zapcore.Entry, fields []zapcore.Field) error {
	var code string
	var failure error
	for _, f := range append(w.with[:len(w.with):len(w.with)], fields...) {
		switch err, isError := f.Interface.(error); {
		case f.Key == "code" && f.Type == zapcore.StringType:
			code = f.String
		case f.Type == zapcore.ErrorType && isError:
			failure = err
		}
	}
	if code != "" {
		w.see(code, failure)
	}
	return nil
}

// Sync has nothing to write.
func (w *logWatch) Sync() error { return nil }

// target tells to whom a code's work goes, and by which kind of failure it is counted.
func target(code string) (target, kind string, ok bool) {
	area, kind, _ := strings.Cut(code, ".")
	switch area {
	case "crl":
		return partGit, kind, true
	case "directory":
		return partDirectory, kind, true
	}
	return "", "", false
}

// roomCode tells which alarm an error of the line to the key room is.
func roomCode(err error) string {
	for _, c := range []struct {
		is   error
		code string
	}{
		{signer.ErrStoreBehind, codeStoreBehind}, {signer.ErrRoomBehind, codeRoomBehind},
		{signer.ErrFork, codeStoreFork}, {signer.ErrUnreachable, codeRoomAway},
		{store.ErrBroken, codeStoreBroken}, {store.ErrClosed, codeStoreBroken},
	} {
		if errors.Is(err, c.is) {
			return c.code
		}
	}
	return codeRoomOther
}
