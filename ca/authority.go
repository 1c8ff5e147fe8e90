// Package ca is the life of a certificate: issue, revoke, status, recover, and the lint that stands
// before every signature.
//
// It imports store, ca/signer, ca/profile, ca/name, ca/cert and audit, and never the key room: it
// reserves serial and request id on the log, asks the room over its wire, and enters what came of it.
// Who may ask for what is decided above it; what it is handed as a caller is believed.
//
// Errors keep three things apart. A *Refusal, of this package, of ca/profile or of ca/signer, is a clear
// no, with nothing done; if it is a retry that is refused, and not what it asks for, it says what the first
// call has got. signer.ErrUnknown in the chain means that something was done or may have been, and the same
// request id finds it out. Anything else failed with nothing done.
package ca

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/ca/profile"
	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/store"
)

// Directory is asked which entry a name belongs to, before a key is made.
type Directory interface {
	// Find gives the id of the one entry of a name. ErrNoEntry and ErrManyEntries in the error's chain
	// refuse the request; any other error means that the directory is down, and the issue goes on.
	Find(ctx context.Context, purpose cert.Purpose, n name.Name) (entry string, err error)
}

// What a Directory can say of a name besides an entry.
var (
	ErrNoEntry     = errors.New("the directory has no entry for this name")
	ErrManyEntries = errors.New("the directory has more than one entry for this name")
)

// Refusal is a clear no: nothing was done. Code is stable; Reason says what to do; Prior is the request
// id of an earlier request, where that is the reason. Record is what the log says instead of Reason where
// the caller may not know all of it.
type Refusal struct {
	Code   string
	Reason string
	Prior  string
	Record string
}

// Error gives code and reason.
func (r *Refusal) Error() string { return r.Code + ": " + r.Reason }

func refuse(code, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Reason: fmt.Sprintf(format, args...)}
}

// unsettled is an error after which nobody may say that nothing was done. To errors.Is it is
// signer.ErrUnknown.
type unsettled struct{ err error }

func (u unsettled) Error() string        { return "something may have been done: " + u.err.Error() }
func (u unsettled) Unwrap() error        { return u.err }
func (u unsettled) Is(target error) bool { return target == signer.ErrUnknown }

func unknown(err error) error {
	if err == nil {
		return nil
	}
	return unsettled{err}
}

// lost is unknown for an error of a call that changes something if the store does not know what it holds: the change, or
// that of an earlier call with the same id, may be in it. Any other error stays what it is.
func lost(err error) error {
	if errors.Is(err, store.ErrBroken) {
		return unknown(err)
	}
	return err
}

// Call is who asks, and under which id.
type Call struct {
	Who        audit.Actor
	Rule       string               // the grant that allows the call
	RequestID  string               // is needed; a retry under it gets the same answer
	Made       bool                 // RequestID was made for the caller, who named none
	BodySHA256 string               // of the decoded request without its id, lower-case hex
	Plan       bool                 // say what would happen and change nothing
	Decision   string               // of an earlier Plan, "" for none: refuse if it would be another now
	Request    *audit.SignedRequest // the call as its caller signed it, if that one signs
	// Spend is asked before anything is changed by some grants, and may refuse. giveBack is called if nothing was
	// changed after all. It may be nil.
	Spend func(rules ...string) (giveBack func(), err error)
	// PublishBy is when the wait for the world to take up what is owed ends, if it is earlier: for calls that share a
	// wait. Zero: never earlier.
	PublishBy time.Time
}

// patience is what a call has left of a wait for publication.
func (c Call) patience(wait time.Duration) time.Duration {
	if c.PublishBy.IsZero() {
		return wait
	}
	return min(wait, time.Until(c.PublishBy))
}

func (c Call) spend(rules ...string) (giveBack func(), err error) {
	if c.Spend == nil {
		return func() {}, nil
	}
	return c.Spend(rules...)
}

// The bounded waits of a call for the world. What is not there by then is owed, and the answer says so.
const (
	directoryAsk = 2 * time.Second // for Directory.Find
	publishWait  = 2 * time.Second // for the directory to hold a certificate
	revokeWait   = 5 * time.Second // for a list to be in git
)

const (
	signDeadline  = 2 * time.Minute  // how long the key room may sign an intent
	repeatWindow  = 10 * time.Minute // how long an identical issue without a request id is refused
	defaultRevoke = audit.DefaultMax // certificates that one revoke may hit unless the caller says more
)

// Authority issues and revokes.
type Authority struct {
	store     *store.Store
	signer    *signer.Client
	directory Directory // nil: certificates are not published
	rand      io.Reader
	lint      *linter
	room      string
	root      *x509.Certificate
	issuers   map[cert.Purpose]*issuer
	reserved  func() []string
	rsa       *turns // places for making RSA keys, which take seconds of a core

	mu      sync.Mutex
	flights map[string]*flight // by caller and request id
}

type issuer struct {
	id      cert.Issuer
	cert    *x509.Certificate
	builder *profile.Builder
	crlURL  string
	maxDays int
}

// Options are what an authority works with. Directory may be nil, and so may Reserved, which gives host
// names, in canonical form, whose server certificates callers neither get nor revoke: those of the service
// itself, as they are now.
type Options struct {
	Store     *store.Store
	Signer    *signer.Client
	Directory Directory
	Rand      io.Reader
	Reserved  func() []string
}

// New takes up the issuers that the key room names.
func New(o Options) (*Authority, error) {
	hello := o.Signer.Hello()
	root, err := x509.ParseCertificate(hello.Root)
	if err != nil {
		return nil, fmt.Errorf("reading the root certificate: %w", err)
	}
	lint, err := newLinter()
	if err != nil {
		return nil, err
	}
	a := &Authority{
		store: o.Store, signer: o.Signer, directory: o.Directory, rand: o.Rand, lint: lint,
		room: hello.Room, root: root,
		issuers: make(map[cert.Purpose]*issuer),
		flights: make(map[string]*flight), reserved: o.Reserved,
		rsa: newTurns(max(1, runtime.GOMAXPROCS(0)-1)),
	}
	for _, h := range hello.Issuers {
		parsed, err := x509.ParseCertificate(h.Certificate)
		if err != nil {
			return nil, fmt.Errorf("reading the certificate of issuer %s: %w", h.ID, err)
		}
		builder, err := profile.NewBuilder(parsed, o.Rand)
		if err != nil {
			return nil, fmt.Errorf("taking up issuer %s: %w", h.ID, err)
		}
		i := &issuer{id: h.ID, cert: parsed, builder: builder, crlURL: h.CRLURL, maxDays: h.MaxValidityDays}
		for _, p := range h.Purposes {
			if a.issuers[p] != nil {
				return nil, fmt.Errorf("issuers %s and %s are both for purpose %s", a.issuers[p].id, h.ID, p)
			}
			a.issuers[p] = i
		}
	}
	return a, nil
}

// Root is the fingerprint of the root certificate.
func (a *Authority) Root() cert.Fingerprint { return cert.FingerprintOf(a.root.Raw) }

// Chain is an issuing CA and those above it, the root last.
type Chain struct {
	Purpose      cert.Purpose
	Issuer       cert.Issuer
	Certificates [][]byte // DER
}

// Chain gives the chain for a purpose.
func (a *Authority) Chain(p cert.Purpose) (Chain, error) {
	i := a.issuers[p]
	if i == nil {
		return Chain{}, refuse("purpose.unknown", "this CA has no issuer for purpose %q; ca.chain tells which there are", string(p))
	}
	return Chain{p, i.id, [][]byte{i.cert.Raw, a.root.Raw}}, nil
}

// own refuses to let a caller stand in for the service, or take its certificate from it: whoever holds a
// certificate for one of its names can answer the other callers.
func (a *Authority) own(who audit.Actor, p cert.Purpose, cn string, sans cert.SANs) error {
	if who.Kind != audit.ByCaller || p != cert.Server || a.reserved == nil {
		return nil
	}
	reserved := a.reserved()
	for _, host := range append([]string{cn}, sans.DNS...) {
		if slices.Contains(reserved, host) {
			return refuse("name.reserved", "%q is a name of this service itself; the operator of the CA looks after its certificate", host)
		}
	}
	return nil
}

func debtKey(p cert.Purpose, key string) string { return string(p) + "/" + key }

// published tells whether certificates of a purpose go to the directory.
func (a *Authority) published(p cert.Purpose) bool { return a.directory != nil && p != cert.Caller }
