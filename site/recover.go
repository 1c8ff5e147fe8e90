package site

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os/user"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/store"
)

// Recovered tells what Recover did.
type Recovered struct {
	From         int64 `json:"from"` // first leaf that was missing
	Leaves       int   `json:"leaves"`
	Certificates int   `json:"certificates"` // that were completed by them
}

// Recover brings a store that lost the end of its log, or was put back from an old copy, up to what the
// key room has read: the leaves are appended as they were, and the books follow from them and from the
// certificates in the room's journal. The daemon must not run, the key room must.
func Recover(ctx context.Context, c Config) (Recovered, error) {
	lock, err := lockState(c.State)
	if err != nil {
		return Recovered{}, err
	}
	defer lock.Close()
	s, err := store.Open(ctx, c.StorePath(), time.Now)
	if err != nil {
		return Recovered{}, err
	}
	done, err := recoverStore(ctx, c, s)
	return done, errors.Join(err, s.Close())
}

func recoverStore(ctx context.Context, c Config, s *store.Store) (Recovered, error) {
	room, err := signer.DialReader(ctx, c.KeyRoom)
	if err != nil {
		return Recovered{}, err
	}
	defer room.Close()
	from, _ := s.Head()
	r := &recovery{room: room, store: s, from: from, directory: c.Directory != nil}
	done := Recovered{From: from}
	if err := r.fetch(ctx, from); err != nil {
		return done, err
	}
	done.Leaves, done.Certificates = len(r.leaves), len(r.certificates)
	if len(r.leaves) == 0 {
		return done, nil
	}
	if err := s.Restore(ctx, r.leaves, r.fill); err != nil {
		return done, err
	}
	return done, r.note(ctx, from)
}

// recovery is what the room supplied.
type recovery struct {
	room         *signer.Reader
	store        *store.Store
	directory    bool  // certificates are published in one
	from         int64 // index of the first leaf
	leaves       [][]byte
	certificates map[cert.Serial][]byte
}

// fetch reads the leaves from index from on, checks that they and ours give the room's root, and reads
// the certificates that they complete.
func (r *recovery) fetch(ctx context.Context, from int64) error {
	state := r.room.Hello().State
	tree, err := r.store.Tree(ctx, min(from, state.Size))
	if err != nil {
		return err
	}
	for next := from; next < state.Size; next = from + int64(len(r.leaves)) {
		leaves, err := r.room.Leaves(next)
		if err != nil {
			return fmt.Errorf("reading the missing leaves from the key room: %w", err)
		}
		leaves = leaves[:min(int64(len(leaves)), state.Size-next)]
		if len(leaves) == 0 {
			return fmt.Errorf("the key room has no leaf %d of the %d it has read", next, state.Size)
		}
		for _, leaf := range leaves {
			tree.Append(leaf)
		}
		r.leaves = append(r.leaves, leaves...)
	}
	if root := tree.Root(); hex.EncodeToString(root[:]) != state.Root {
		return fmt.Errorf("%w (the roots at %d leaves differ)", signer.ErrFork, state.Size)
	}
	return r.fetchCertificates()
}

func (r *recovery) fetchCertificates() error {
	r.certificates = make(map[cert.Serial][]byte)
	for _, encoded := range r.leaves {
		leaf, err := audit.Decode(encoded)
		if err != nil {
			return err
		}
		done, ok := leaf.Event.(*audit.IssueDone)
		if !ok {
			continue
		}
		der, err := r.room.Lookup(done.Intent)
		if err != nil {
			return fmt.Errorf("reading certificate %s from the key room: %w", done.Serial, err)
		}
		if cert.FingerprintOf(der) != done.Fingerprint {
			return fmt.Errorf("the key room's certificate %s is not the one on the log", done.Serial)
		}
		r.certificates[done.Serial] = der
	}
	return nil
}

// fill brings the books to what a leaf says, and owes the world a visit to every place that it touches:
// in the same transaction, because nobody would know of them if the process died before the next. What
// no leaf holds stays lost: the CSRs, and the sealed secrets, so that a retry is answered without them;
// and the lists, so each issuer owes a new one.
func (r *recovery) fill(tx *store.Tx, index int64, leaf audit.Leaf) error {
	if index == r.from {
		for _, i := range r.room.Hello().Issuers {
			if _, err := tx.Owe(store.CRL, string(i.ID)); err != nil {
				return err
			}
		}
	}
	switch e := leaf.Event.(type) {
	case *audit.IssueIntent:
		c, err := announced(leaf, e)
		if err != nil {
			return err
		}
		return tx.Reserve(c)
	case *audit.IssueDone:
		if _, _, err := tx.Complete(e.Serial, r.certificates[e.Serial]); err != nil {
			return err
		}
		return r.oweEntry(tx, e.Serial)
	case *audit.IssueAbandoned:
		return tx.Abandon(e.Serial)
	case *audit.RevokeDone:
		return r.fillRevoke(tx, leaf, e)
	case *audit.ReleaseDone:
		return r.fillRelease(tx, leaf, e)
	}
	return nil
}

// announced is the row that an intent makes.
func announced(leaf audit.Leaf, e *audit.IssueIntent) (store.Certificate, error) {
	n, err := name.Canonical(e.Purpose, e.CN)
	if err != nil {
		return store.Certificate{}, err
	}
	return store.Certificate{
		Serial: e.Serial, Issuer: e.Issuer, Purpose: e.Purpose, CN: e.CN, Key: n.Key, SANs: e.SANs, KeyType: e.KeyType,
		Caller: leaf.Actor.Name, RequestID: e.RequestID, BodySHA256: e.BodySHA256,
		NotBefore: e.NotBefore, NotAfter: e.NotAfter, Deadline: e.Deadline,
		SPKISHA256: e.SPKISHA256, TBSSHA256: e.TBSSHA256, Entry: e.Entry,
	}, nil
}

// oweEntry owes the directory a visit to the place of a certificate, if it has one.
func (r *recovery) oweEntry(tx *store.Tx, serial cert.Serial) error {
	if !r.directory {
		return nil
	}
	found, err := tx.Find(store.Query{Serial: serial})
	if err != nil {
		return err
	}
	for _, c := range found {
		if c.Purpose == cert.Caller {
			continue
		}
		if _, err := tx.Owe(store.Directory, string(c.Purpose)+"/"+c.Key); err != nil {
			return err
		}
	}
	return nil
}

func (r *recovery) fillRevoke(tx *store.Tx, leaf audit.Leaf, e *audit.RevokeDone) error {
	for _, rev := range e.Revoked {
		if _, err := tx.Revoke(rev.Serial, rev.At, rev.Reason); err != nil {
			return err
		}
		if err := r.oweEntry(tx, rev.Serial); err != nil {
			return err
		}
	}
	for _, serial := range e.Pending {
		if _, err := tx.Revoke(serial, tx.Now(), e.Reason); err != nil {
			return err
		}
	}
	return tx.BindRequest(store.Request{
		Caller: leaf.Actor.Name, ID: e.RequestID, Method: ca.RevokeMethod, BodySHA256: e.BodySHA256, Index: tx.Index(),
	})
}

func (r *recovery) fillRelease(tx *store.Tx, leaf audit.Leaf, e *audit.ReleaseDone) error {
	for _, released := range e.Released {
		if _, err := tx.Release(released.Serial); err != nil {
			return err
		}
		if err := r.oweEntry(tx, released.Serial); err != nil {
			return err
		}
	}
	return tx.BindRequest(store.Request{
		Caller: leaf.Actor.Name, ID: e.RequestID, Method: ca.ReleaseMethod, BodySHA256: e.BodySHA256, Index: tx.Index(),
	})
}

// note says on the log that leaves were missing.
func (r *recovery) note(ctx context.Context, from int64) error {
	hello := r.room.Hello()
	_, err := r.store.Update(ctx, operator(), func(*store.Tx) (audit.Event, error) {
		return &audit.LogRecovered{
			From: from, Size: hello.State.Size,
			Room: audit.RoomState{Room: hello.Room, Sequence: hello.State.Sequence, Journal: hello.State.Journal},
		}, nil
	})
	return err
}

// operator is whoever runs this command.
func operator() audit.Actor {
	who := audit.Actor{Kind: audit.ByOperator}
	if u, err := user.Current(); err == nil {
		who.Name = u.Username
	}
	return who
}
