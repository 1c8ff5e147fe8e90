// Package crl brings lists to git: when a list is owed, or grows old, it has the key room sign a new
// one, checks it against the last, and publishes it with a checkpoint of the log that covers it, in one
// signed commit that is read back.
//
// It imports store, ca/signer, ca/cert, audit, crl/list and crl/gitrepo. The remote is untrusted input:
// only a list that verifies under our issuer counts as the last on the remote; anything else in our
// folder is overwritten, and an alarm says so.
package crl

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/crl/gitrepo"
	"github.com/chancery-ca/chancery/crl/list"
	"github.com/chancery-ca/chancery/store"
)

// The times of a list. It is signed anew long before it expires, because most consumers refuse
// everybody on an expired list, and some let everybody in.
const (
	validity  = 7 * 24 * time.Hour
	signEvery = 12 * time.Hour

	leaseTime  = 2 * time.Minute
	sweepEvery = 5 * time.Minute
	pollEvery  = time.Second // for debts whose next attempt is due, which nothing announces
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
)

// The codes under which failures are logged. Alarms are bound to them, so they never change.
const (
	codeSign     = "crl.sign"
	codePublish  = "crl.publish"
	codeTampered = "crl.tampered"
	codeBooks    = "crl.books"
	codeRoot     = "crl.root"
)

// errSign says that there is no list to publish yet, so that git is not blamed.
var errSign = errors.New("signing the list")

// Loop publishes the lists of every issuer of the key room.
type Loop struct {
	store     *store.Store
	signer    *signer.Client
	publisher *gitrepo.Publisher
	log       *zap.Logger
	room      string
	root      *authority
	issuers   []*authority

	// What was proved last, so that the same bytes need not be read again: a list of an issuer, and the
	// files that were published. Only one goroutine publishes.
	lists  map[cert.Issuer]*list.List
	proved gitrepo.Files

	moved bool // to a place where nothing of ours has been published yet

	next atomic.Pointer[successor] // takes over with the next publication; nil: the one there stays
}

// successor is another publisher, maybe to another place.
type successor struct {
	publisher *gitrepo.Publisher
	moved     bool
}

// authority is a CA whose list stands in the folder.
type authority struct {
	id   cert.Issuer
	cert *x509.Certificate
}

// Options are what a loop works with.
type Options struct {
	Store     *store.Store
	Signer    *signer.Client
	Publisher *gitrepo.Publisher
	Log       *zap.Logger
}

// New takes up the issuers that the key room names.
func New(o Options) (*Loop, error) {
	hello := o.Signer.Hello()
	root, err := x509.ParseCertificate(hello.Root)
	if err != nil {
		return nil, fmt.Errorf("reading the root certificate: %w", err)
	}
	l := &Loop{
		store: o.Store, signer: o.Signer, publisher: o.Publisher, log: o.Log, room: hello.Room,
		root: &authority{cert.Root, root}, lists: make(map[cert.Issuer]*list.List),
	}
	for _, h := range hello.Issuers {
		parsed, err := x509.ParseCertificate(h.Certificate)
		if err != nil {
			return nil, fmt.Errorf("reading the certificate of issuer %s: %w", h.ID, err)
		}
		l.issuers = append(l.issuers, &authority{h.ID, parsed})
	}
	return l, nil
}

// Run publishes what is owed as it is owed, and sweeps at times, until ctx ends, which is no error, or
// the store is lost, or git proves it an old copy (ErrRolledBack).
func (l *Loop) Run(ctx context.Context) error {
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	swept := time.Time{}
	for {
		sweep := l.takeOver() || l.store.Now().Sub(swept) > sweepEvery
		_, err := l.once(ctx, sweep)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, store.ErrClosed), errors.Is(err, store.ErrBroken), errors.Is(err, ErrRolledBack):
			return err
		}
		if sweep {
			swept = l.store.Now()
		}
		select {
		case <-l.store.Wake(store.CRL):
		case <-poll.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Use makes another publisher the one, after a publication that is under way. All lists are brought to its
// remote, or repaired there, within seconds. If it has moved to another place, what is missing there is no
// alarm.
func (l *Loop) Use(p *gitrepo.Publisher, moved bool) {
	if last := l.next.Load(); last != nil {
		moved = moved || last.moved
	}
	l.next.Store(&successor{p, moved})
}

func (l *Loop) takeOver() bool {
	next := l.next.Swap(nil)
	if next == nil {
		return false
	}
	l.publisher, l.proved, l.moved = next.publisher, nil, l.moved || next.moved
	return true
}

// PayOnce publishes what is owed or old, and repairs what drifted, once. It returns the commit that
// holds the lists.
func (l *Loop) PayOnce(ctx context.Context) (commit string, err error) { return l.once(ctx, true) }

// once leases what is owed and publishes. Without a debt it looks at the remote only if sweep is set.
func (l *Loop) once(ctx context.Context, sweep bool) (commit string, err error) {
	debts, err := l.store.Lease(ctx, store.CRL, len(l.issuers), l.store.Now().Add(leaseTime))
	if err != nil {
		l.log.Error("cannot read which lists are owed", zap.String("code", codeBooks), zap.Error(err))
		return "", err
	}
	if len(debts) == 0 && !sweep {
		return "", nil
	}
	commit, err = l.publish(ctx, debts)
	if err == nil {
		return commit, nil
	}
	if ctx.Err() == nil {
		code := codePublish
		if errors.Is(err, errSign) {
			code = codeSign
		}
		l.log.Error("the lists are not published", zap.String("code", code), zap.Int("owed", len(debts)), zap.Error(err))
	}
	for _, d := range debts {
		next := l.store.Now()
		if l.next.Load() == nil { // otherwise another publisher tries at once
			next = next.Add(backoff(d.Attempts))
		}
		if postponed := l.store.Postpone(context.WithoutCancel(ctx), d, next, err.Error()); postponed != nil {
			return "", errors.Join(err, postponed)
		}
	}
	return "", err
}

// backoff waits longer after each failure, with full jitter so that several daemons do not march in
// step.
func backoff(attempts int) time.Duration {
	limit := min(firstRetry<<min(attempts, 10), lastRetry)
	return limit/2 + rand.N(limit/2)
}

// publish signs what has to be signed and brings all lists to the remote.
func (l *Loop) publish(ctx context.Context, debts []store.Debt) (string, error) {
	seen, err := l.lookAtRemote(ctx)
	if err != nil {
		return "", err
	}
	for _, i := range l.issuers {
		current, found, err := l.store.List(ctx, i.id)
		if err != nil {
			return "", err
		}
		if found && !l.needsNew(current, debts, seen[i.id]) {
			continue
		}
		if err := l.remoteKnown(ctx, i, current, seen[i.id]); err != nil {
			return "", err
		}
		if err := l.sign(ctx, i, current, found, seen[i.id]); err != nil {
			return "", fmt.Errorf("%w of %s: %w", errSign, i.id, err)
		}
	}
	root, err := l.rootList(ctx, seen[cert.Root])
	if err != nil {
		return "", err
	}
	return l.push(ctx, debts, root)
}

// needsNew tells whether an issuer's last list no longer does: it may lack a revocation, is old, or
// does not follow what somebody already saw on the remote.
func (l *Loop) needsNew(current store.List, debts []store.Debt, seen *list.List) bool {
	for _, d := range debts {
		// The room puts into a list what it has read, and it has read the intent at least.
		if d.Key == string(current.Issuer) && d.Generation > current.Signed {
			return true
		}
	}
	// A list from the future, from a time when the clock was wrong, cannot be published.
	age := l.store.Now().Sub(current.ThisUpdate)
	return strange(seen, current) || age > signEvery || age < -list.Skew
}

// number reads a CRL number out of the books.
func number(decimal string) *big.Int {
	n, ok := new(big.Int).SetString(decimal, 10)
	if !ok {
		return new(big.Int)
	}
	return n
}

// sign has the room sign a new list of one issuer, checks it, and enters it. Its number is above every
// number that the books, the room or the remote have seen.
func (l *Loop) sign(ctx context.Context, i *authority, current store.List, found bool, seen *list.List) error {
	next := number(current.Number)
	if n := number(l.signer.Hello().State.ListNumbers[i.id]); n.Cmp(next) > 0 {
		next = n
	}
	if seen != nil && seen.Number.Cmp(next) > 0 {
		next = seen.Number
	}
	decimal := new(big.Int).Add(next, big.NewInt(1)).String()
	daemon := audit.Actor{Kind: audit.ByDaemon}
	var intent audit.CRLIntent
	entry, err := l.store.Update(ctx, daemon, func(tx *store.Tx) (audit.Event, error) {
		now := tx.Now().Truncate(time.Second)
		intent = audit.CRLIntent{Room: l.room, Issuer: i.id, Number: decimal, ThisUpdate: now, NextUpdate: now.Add(validity)}
		return &intent, nil
	})
	if err != nil {
		return err
	}
	der, entries, err := l.signer.SignCRL(ctx, entry)
	if err != nil {
		return err
	}
	if err := l.check(ctx, i, der, decimal, current, found, seen); err != nil {
		return fmt.Errorf("list %s is not published: %w", decimal, err)
	}
	_, err = l.store.Update(ctx, daemon, func(tx *store.Tx) (audit.Event, error) {
		sum := cert.SHA256(der)
		kept := store.List{
			Issuer: i.id, Number: decimal, ThisUpdate: intent.ThisUpdate, NextUpdate: intent.NextUpdate,
			Entries: entries, DER: der, SHA256: sum, Signed: entry.Index,
		}
		if err := tx.PutList(kept); err != nil {
			return nil, err
		}
		return &audit.CRLSigned{
			Issuer: i.id, Number: decimal, Intent: entry.Index, Entries: entries, SHA256: sum, Room: l.signer.RoomState(),
		}, nil
	})
	return err
}

// check judges a list by the rules that every list in git must meet, before anybody sees it.
func (l *Loop) check(ctx context.Context, i *authority, der []byte, decimal string, current store.List, found bool, seen *list.List) error {
	var last *list.List
	if found {
		var err error
		if last, err = l.read(i, current.DER); err != nil {
			return fmt.Errorf("reading the last list in the books: %w", err)
		}
	}
	next, err := l.read(i, der)
	if err != nil {
		return err
	}
	if err := next.Current(l.store.Now()); err != nil {
		return err
	}
	if next.Number.String() != decimal {
		return fmt.Errorf("it is number %s, not %s", next.Number, decimal)
	}
	if last != nil {
		if err := l.follows(ctx, next, last); err != nil {
			return fmt.Errorf("it does not follow list %s of the books: %w", last.Number, err)
		}
	}
	// What is older than the last list was judged when that one was signed. Judged again, entries that
	// have left since would be missed, and whoever can push could hold back every later list.
	if strange(seen, current) {
		if err := l.follows(ctx, next, seen); err != nil {
			return fmt.Errorf("it does not follow list %s on the remote: %w", seen.Number, err)
		}
	}
	return l.entriesKnown(ctx, i, next, last)
}

// read parses and verifies a list of an issuer, and remembers the last one.
func (l *Loop) read(i *authority, der []byte) (*list.List, error) {
	if last := l.lists[i.id]; last != nil && bytes.Equal(last.Raw, der) {
		return last, nil
	}
	parsed, err := list.Parse(der)
	if err != nil {
		return nil, err
	}
	if err := parsed.Verify(i.cert); err != nil {
		return nil, err
	}
	l.lists[i.id] = parsed
	return parsed, nil
}

func (l *Loop) follows(ctx context.Context, next, last *list.List) error {
	var failed error
	expiry := func(serial cert.Serial) (time.Time, bool) {
		found, err := l.store.Find(ctx, store.Query{Serial: serial})
		if err != nil {
			failed = err
		}
		if err != nil || len(found) == 0 {
			return time.Time{}, false
		}
		return found[0].NotAfter, true
	}
	released := func(hold list.Entry) bool {
		found, err := l.store.Find(ctx, store.Query{Serial: hold.Serial})
		if err != nil {
			failed = err
		}
		return len(found) > 0 && found[0].Released(hold.RevokedAt)
	}
	return errors.Join(list.Follows(next, last, expiry, released), failed)
}

// entriesKnown checks that the books know every entry that is new or changed since last, as revoked at
// that time and for that reason, or for one that it has become since. The date may be an earlier one: a
// room whose clock had not come to it put its own time.
func (l *Loop) entriesKnown(ctx context.Context, i *authority, next, last *list.List) error {
	for _, e := range next.Entries {
		if last != nil {
			if before, ok := last.Find(e.Serial); ok && before == e {
				continue
			}
		}
		found, err := l.store.Find(ctx, store.Query{Serial: e.Serial, Issuer: i.id})
		if err != nil {
			return err
		}
		if len(found) > 0 && e.Reason == cert.CertificateHold && found[0].Released(e.RevokedAt) {
			continue
		}
		if len(found) == 0 || found[0].State != store.StateRevoked {
			return fmt.Errorf("it revokes %s, which the books do not know as revoked", e.Serial)
		}
		if c := found[0]; e.RevokedAt.After(c.RevokedAt) || !e.Reason.CanBecome(c.Reason) {
			return fmt.Errorf("it revokes %s at %s (%s), the books at %s (%s)", e.Serial,
				e.RevokedAt.Format(time.RFC3339), e.Reason, c.RevokedAt.Format(time.RFC3339), c.Reason)
		}
	}
	return nil
}
