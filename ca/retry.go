package ca

import (
	"context"
	"errors"
	"fmt"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/store"
)

// flight is a request that is under way: a second call with the same id waits for the first, and the
// recovery loop leaves its intent alone.
type flight struct{ landed chan struct{} }

// takeOff waits until no other call with the same caller and request id is under way. The function it
// returns ends the flight.
func (a *Authority) takeOff(ctx context.Context, caller, requestID string) (land func(), err error) {
	for {
		land, other := a.tryTakeOff(caller, requestID)
		if other == nil {
			return land, nil
		}
		select {
		case <-other.landed:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: the same request is under way: %w", signer.ErrUnknown, ctx.Err())
		}
	}
}

// tryTakeOff begins a flight, or gives the one that is under way.
func (a *Authority) tryTakeOff(caller, requestID string) (land func(), other *flight) {
	key := caller + "\x00" + requestID
	a.mu.Lock()
	defer a.mu.Unlock()
	if other := a.flights[key]; other != nil {
		return nil, other
	}
	mine := &flight{make(chan struct{})}
	a.flights[key] = mine
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.flights, key)
		close(mine.landed)
	}, nil
}

// issuedBefore gives the answer of an earlier call with the same id, which spent this serial, again. It
// gives nil if nothing came of that call.
func (a *Authority) issuedBefore(ctx context.Context, call Call, serial cert.Serial) (*Issued, error) {
	c, err := a.certificate(ctx, serial)
	if err != nil {
		return nil, err
	}
	if c.State == store.StateOpen {
		if c, err = a.settle(ctx, audit.Actor{Kind: audit.ByDaemon}, c.Serial, c.Intent, "retried"); err != nil {
			return nil, err
		}
	}
	if c.State == store.StateAbandoned {
		return nil, a.checkFree(ctx, call, c)
	}
	return a.redeliver(ctx, call, c)
}

// checkFree refuses a request whose certificate was revoked before it was signed: who revoked it was told that it will
// be revoked as it is issued, so its id has not become free.
func (a *Authority) checkFree(ctx context.Context, call Call, c store.Certificate) error {
	_, bound, err := a.store.Request(ctx, call.Who.Name, call.RequestID)
	if err != nil || !bound {
		return err
	}
	return withheld{refuse("certificate.revoked", "certificate %s of this request_id was revoked before it was signed; if another one is wanted, take a new request_id", c.Serial)}
}

// earlier looks a request id up and refuses it if it was used for something else.
func (a *Authority) earlier(ctx context.Context, call Call, method string) (store.Request, bool, error) {
	request, found, err := a.store.Request(ctx, call.Who.Name, call.RequestID)
	if err != nil || !found {
		return request, false, err
	}
	if request.Method != method || request.BodySHA256 != call.BodySHA256 {
		return request, false, refuse("request_id.other_request", "this request_id was used for another call, which is at %d of the log; take a new one", request.Index)
	}
	return request, true, nil
}

// redeliver gives the answer to an issue again. The opening of the secrets is on the log before the key
// room opens them.
func (a *Authority) redeliver(ctx context.Context, call Call, c store.Certificate) (*Issued, error) {
	intent, err := a.intentOf(ctx, c)
	switch {
	case err != nil:
		return nil, err
	case intent.KeyMadeBy != "ca":
		return a.answerIssue(ctx, call, c, nil, "issued")
	case c.Sealed == nil || cert.SHA256(c.Sealed) != intent.SealedSHA256: // dropped, or damaged, which fsck tells
		return a.answerIssue(ctx, call, c, nil, "issued.secrets_gone")
	}
	if err := intent.CheckRetry(call.Request); err != nil {
		return nil, withheld{otherwiseSpelled(fmt.Errorf("%s; %w", keeps(c), err))}
	}
	s, err := a.reopen(ctx, call, c)
	var refusal *signer.Refusal
	switch is := errors.As(err, &refusal); {
	case is && refusal.NeverOpens():
		return a.answerIssue(ctx, call, c, nil, "issued.secrets_gone") // asking again would not help
	case is && refusal.OfRequest():
		return nil, withheld{&signer.Refusal{Code: refusal.Code, Reason: keeps(c) + "; " + refusal.Reason}}
	case err != nil:
		return nil, err
	}
	return a.answerIssue(ctx, call, c, s, "issued")
}

// reopen has the key room open the secrets of a certificate.
func (a *Authority) reopen(ctx context.Context, call Call, c store.Certificate) (*secrets, error) {
	entry, err := a.store.Update(ctx, call.Who, func(*store.Tx) (audit.Event, error) {
		return &audit.IssueRedelivered{
			Serial: c.Serial, Intent: c.Intent, RequestID: call.RequestID, SealedSHA256: cert.SHA256(c.Sealed), Room: a.room,
			Request: call.Request,
		}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("entering the redelivery: %w", err)
	}
	text, err := a.signer.Open(ctx, entry, c.Sealed)
	if err != nil {
		return nil, fmt.Errorf("opening the subject's secrets: %w", err)
	}
	defer clear(text)
	return parseSecrets(text)
}

// withheld is a no to a retry that says what the first call has got: nothing is unknown after it.
type withheld struct{ error }

func (w withheld) Unwrap() error { return w.error }

func keeps(c store.Certificate) string {
	return fmt.Sprintf("certificate %s was issued for this request_id, and its secrets stay sealed", c.Serial)
}

// intentOf reads the leaf that announced a certificate: only it says whether the CA made the key.
func (a *Authority) intentOf(ctx context.Context, c store.Certificate) (*audit.IssueIntent, error) {
	leaf, err := a.store.Leaf(ctx, c.Intent)
	if err != nil {
		return nil, err
	}
	intent, ok := leaf.Event.(*audit.IssueIntent)
	if !ok {
		return nil, fmt.Errorf("leaf %d is not the intent of %s", c.Intent, c.Serial)
	}
	return intent, nil
}

func (a *Authority) certificate(ctx context.Context, serial cert.Serial) (store.Certificate, error) {
	found, err := a.store.Find(ctx, store.Query{Serial: serial})
	if err != nil {
		return store.Certificate{}, err
	}
	if len(found) == 0 {
		return store.Certificate{}, fmt.Errorf("serial %s: %w", serial, store.ErrUnknownSerial)
	}
	return found[0], nil
}
