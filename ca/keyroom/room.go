package keyroom

import (
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/profile"
	"github.com/chancery-ca/chancery/ca/signer"
)

// Room holds the keys, the position in the log and what has been signed. Its methods take one batch at
// a time.
type Room struct {
	config Config
	build  string
	now    func() time.Time
	rand   io.Reader
	log    *slog.Logger
	// patience is the constant of this name, except in tests.
	patience time.Duration
	reading  func(leaves int64) // nil: nobody is told

	logKey   note.Signer
	logVKey  string
	delivery *delivery
	root     []byte // DER
	rootCRL  []byte // DER
	issuers  map[cert.Issuer]*issuer
	signers  map[string][]crypto.PublicKey // of callers whose requests have to be signed

	mu      sync.Mutex
	journal *journal
	tree    *audit.Tree
	signed  map[cert.Serial]signature
	voided  map[cert.Serial]bool
	barred  map[cert.Serial]bool  // revoked before they were signed: no list would ever hold them
	asked   map[askedKey]askedUse // what each signed request was used for
	budget  budget
	lists   int64
	last    time.Time // of the last record
	// undropped is set by a forward clock step and stops entries from leaving lists until an operator
	// confirms the clock.
	undropped bool
}

// signature is a certificate that the room signed; its DER is in the journal.
type signature struct {
	record   int64
	tbs      string
	issuer   cert.Issuer
	notAfter time.Time
}

type issuer struct {
	config  IssuerConfig
	cert    *x509.Certificate
	key     crypto.Signer
	builder *profile.Builder
	revoked revoked
	number  *big.Int // of the last list
}

// clockStep is how far the clock may move between two records before the room doubts it.
const clockStep = 24 * time.Hour

// Options are what a room takes from its process. Build names the program in the hello.
type Options struct {
	Config Config
	Build  string
	Now    func() time.Time
	Rand   io.Reader
	Log    *slog.Logger
	// Reading is told how many leaves have been read so far, after each record of the journal that Open
	// reads. Optional.
	Reading func(leaves int64)
}

// Open decrypts the keys and reads the journal. Whatever is missing is an error, and nothing is made anew but
// delivery keys; nothing is written before the room serves.
func Open(o Options) (*Room, error) {
	r := newRoom(o)
	passphrase, err := readPassphrase(o.Config.PassphraseFile)
	if err != nil {
		return nil, err
	}
	defer clear(passphrase)
	if r.signers, err = o.Config.signers(); err != nil {
		return nil, err
	}
	if err := r.loadKeys(passphrase); err != nil {
		return nil, err
	}
	if err := r.loadDelivery(passphrase); err != nil {
		return nil, err
	}
	debug.FreeOSMemory() // the key derivation took many times what the room needs from here on
	if err := r.follow(r.path("journal")); err != nil {
		return nil, err
	}
	return r, nil
}

func newRoom(o Options) *Room {
	return &Room{
		config: o.Config, build: o.Build, now: o.Now, rand: o.Rand, log: o.Log, patience: patience, reading: o.Reading,
		issuers: make(map[cert.Issuer]*issuer),
	}
}

// follow takes up what the journal at path tells.
func (r *Room) follow(path string) (err error) {
	r.tree = new(audit.Tree)
	r.signed, r.voided = make(map[cert.Serial]signature), make(map[cert.Serial]bool)
	r.barred = make(map[cert.Serial]bool)
	r.asked = make(map[askedKey]askedUse)
	if r.journal, err = openJournal(path, r.config.Room, r.config.Origin, r.replay); err != nil {
		return err
	}
	r.doubtClock(r.now())
	return nil
}

// Close lets go of the journal.
func (r *Room) Close() error {
	r.delivery.close(r.now())
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.journal.close()
}

func (r *Room) path(name string) string { return filepath.Join(r.config.State, name) }

func readPassphrase(path string) ([]byte, error) {
	text, err := readSecret(path)
	if err != nil {
		return nil, fmt.Errorf("reading the key room's passphrase: %w", err)
	}
	for len(text) > 0 && (text[len(text)-1] == '\n' || text[len(text)-1] == '\r') {
		text = text[:len(text)-1]
	}
	if len(text) == 0 {
		return nil, fmt.Errorf("the passphrase in %s is empty", path)
	}
	return text, nil
}

func (r *Room) loadKeys(passphrase []byte) error {
	key, err := readKey(r.path("log.key"), passphrase)
	if err != nil {
		return err
	}
	if r.logKey, r.logVKey, err = logSigner(r.config.Origin, key); err != nil {
		return err
	}
	if r.root, err = readPEM(r.path(rootFile), "CERTIFICATE"); err != nil {
		return err
	}
	if r.rootCRL, err = r.loadRootList(); err != nil {
		return err
	}
	for _, c := range r.config.Issuers {
		if r.issuers[c.ID], err = r.loadIssuer(c, passphrase); err != nil {
			return fmt.Errorf("issuer %s: %w", c.ID, err)
		}
	}
	return nil
}

func (r *Room) loadIssuer(c IssuerConfig, passphrase []byte) (*issuer, error) {
	der, err := readPEM(r.path(string(c.ID)+".pem"), "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading its certificate: %w", err)
	}
	private, err := readKey(r.path(string(c.ID)+".key"), passphrase)
	if err != nil {
		return nil, err
	}
	key, ok := private.(crypto.Signer)
	if !ok {
		return nil, errors.New("its key cannot sign")
	}
	if public, ok := parsed.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(key.Public()) {
		return nil, errors.New("its key does not belong to its certificate")
	}
	builder, err := profile.NewBuilder(parsed, r.rand)
	if err != nil {
		return nil, err
	}
	return &issuer{config: c, cert: parsed, key: key, builder: builder, number: new(big.Int)}, nil
}

func readPEM(path, kind string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", filepath.Base(path), err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%s is not a PEM file with a %s", path, kind)
	}
	return block.Bytes, nil
}

// Hello says who the room is and how far it has read.
func (r *Room) Hello() signer.Hello {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := signer.Hello{
		Version: signer.Version, Build: r.build, Room: r.config.Room, Origin: r.config.Origin,
		LogKey: r.logVKey, RecoveryKey: r.config.RecoveryKey,
		DeliveryHours: r.config.deliveryHours(),
		Root:          r.root, RootCRL: r.currentRootList(), State: r.state(),
		SigningKeys: make(map[string][]string), Troubles: r.delivery.troubles(r.now()),
	}
	for _, c := range r.config.Callers {
		h.SigningKeys[c.Name] = c.SigningKeys
	}
	for _, c := range r.config.Issuers {
		h.Issuers = append(h.Issuers, signer.Issuer{
			ID: c.ID, Certificate: r.issuers[c.ID].cert.Raw, Purposes: c.Purposes, CRLURL: c.CRLURL,
			MaxValidityDays: c.MaxValidityDays, MaxListDays: c.MaxListDays,
		})
	}
	return h
}

func (r *Room) state() signer.State {
	root, chain := r.tree.Root(), r.journal.last()
	s := signer.State{
		Size: r.tree.Size(), Root: hex.EncodeToString(root[:]),
		Sequence: int64(len(r.journal.records)), Journal: hex.EncodeToString(chain[:]),
		Certificates: int64(len(r.signed)), Voided: int64(len(r.voided)), Lists: r.lists,
		ListNumbers: make(map[cert.Issuer]string), Time: r.last,
		Delivery: r.delivery.current(r.now()),
	}
	for id, i := range r.issuers {
		s.ListNumbers[id] = i.number.String()
	}
	return s
}

// replay takes up one record of the journal at start.
func (r *Room) replay(rec record) error {
	if rec.first != r.tree.Size() {
		return fmt.Errorf("its leaves begin at %d, not at %d", rec.first, r.tree.Size())
	}
	ignored := make(map[int64]bool)
	for _, e := range rec.effects {
		ignored[e.index] = ignored[e.index] || e.kind == didIgnore
	}
	for i, leaf := range rec.leaves {
		index := rec.first + int64(i)
		decoded, err := audit.Decode(leaf)
		if err != nil {
			return fmt.Errorf("leaf %d: %w", index, err)
		}
		r.read(index, leaf, decoded, rec.time, ignored[index])
	}
	if r.tree.Root() != rec.root {
		return errors.New("its leaves do not give its root")
	}
	for _, e := range rec.effects {
		if _, ok := r.issuers[e.issuer]; !ok && e.issuer != "" {
			return fmt.Errorf("issuer %s has signed in this room and is missing in keyroom.json", e.issuer)
		}
	}
	r.take(rec)
	if r.reading != nil {
		r.reading(r.tree.Size())
	}
	return nil
}

// read follows one leaf of the log, which the room has read at the time now of its own clock.
func (r *Room) read(index int64, text []byte, leaf audit.Leaf, now time.Time, ignored bool) {
	r.tree.Append(text)
	if ignored {
		return
	}
	r.noteRequest(leaf.Actor.Name, leaf.Event)
	switch e := leaf.Event.(type) {
	case *audit.RevokeDone:
		for _, revocation := range e.Revoked {
			r.revoke(index, revocation, now)
		}
	case *audit.ReleaseDone:
		for _, release := range e.Released {
			r.release(index, release)
		}
	case *audit.IssueDone:
		if e.Revocation != nil {
			r.revoke(index, *e.Revocation, now)
		}
	}
}

func (r *Room) revoke(index int64, rev audit.Revocation, now time.Time) {
	s, ok := r.signed[rev.Serial]
	if !ok {
		// A list has no entry for a certificate that does not exist (I7).
		r.log.Error("the log revokes a certificate that this room never signed", "serial", rev.Serial, "index", index)
		r.barred[rev.Serial] = true
		return
	}
	if rev.At.After(now.Add(clockSkew)) {
		// Java and NSS trust a certificate until its revocation date has come.
		rev.At = now
	}
	r.issuers[s.issuer].revoked.add(index, rev, s.notAfter)
}

// release takes a certificate off hold. A release of anything else changes nothing here, and the verifier
// names it.
func (r *Room) release(index int64, release audit.Release) {
	s, ok := r.signed[release.Serial]
	if !ok || !r.issuers[s.issuer].revoked.release(release.Serial) {
		r.log.Error("the log releases a certificate that is not on hold", "serial", release.Serial, "index", index)
	}
}

// take follows the effects of one record that is durable, or about to be.
func (r *Room) take(rec record) {
	r.doubtClock(rec.time)
	r.last = rec.time
	for _, e := range rec.effects {
		switch e.kind {
		case didSign:
			r.signed[e.serial] = signature{record: rec.sequence, tbs: e.tbs, issuer: e.issuer, notAfter: e.when}
			r.budget.spend(rec.time)
		case didVoid:
			r.voided[e.serial] = true
		case didList:
			i := r.issuers[e.issuer]
			i.number.SetString(e.number, 10)
			i.revoked.listed(rec.first+int64(len(rec.leaves)), e.when, e.dropped)
			r.lists++
		case didConfirm:
			r.undropped = false
		}
	}
}

// doubtClock notices a clock that jumped forward since the last record.
func (r *Room) doubtClock(now time.Time) {
	if !r.last.IsZero() && now.Sub(r.last) > clockStep {
		r.undropped = true
	}
}

// ConfirmClock records that an operator has looked at the clock, so that expired entries may leave the
// lists again.
func (r *Room) ConfirmClock() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.commit(record{time: r.now(), first: r.tree.Size(), effects: []effect{{kind: didConfirm}}})
}

// commit makes a record durable and follows its effects. An error is fatal to the process.
func (r *Room) commit(rec record) error {
	rec.root = r.tree.Root()
	rec.time = rec.time.UTC().Truncate(time.Microsecond) // as replay will read it
	if err := r.journal.append(rec); err != nil {
		return err
	}
	rec.sequence = int64(len(r.journal.records))
	r.take(rec)
	return nil
}
