package store

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
)

// IssueMethod is the method to which Reserve binds a request id.
const IssueMethod = "ca.issue"

// Reserve enters an open intent: the serial number and the request id are spent from the commit on.
// Of c it takes what is known before the signature; State, Intent, Done, DER and the revocation are
// its own to set. It returns ErrSerialTaken, or ErrRequestBound if the caller has used the request id.
func (tx *Tx) Reserve(c Certificate) error {
	if c.Serial == "" || c.Caller == "" || c.RequestID == "" {
		return fmt.Errorf("reserving serial %q: want a serial number, a caller and a request id", c.Serial)
	}
	sans, err := json.Marshal(c.SANs)
	if err != nil {
		return fmt.Errorf("reserving serial %s: %w", c.Serial, err)
	}
	n, err := tx.exec(`INSERT INTO certificate (intent, serial, issuer, purpose, cn, name, sans, key_type, state, caller,
			request_id, body_sha256, reserved, not_before, not_after, deadline, done, spki_sha256, tbs_sha256, csr, sealed, entry)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'open', $9, $10, $11, $12, $13, $14, $15, -1, $16, $17, $18, $19, $20)
		ON CONFLICT (serial) DO NOTHING`,
		tx.index, c.Serial, c.Issuer, c.Purpose, c.CN, c.Key, string(sans), c.KeyType, c.Caller, c.RequestID, c.BodySHA256,
		micros(tx.now), micros(c.NotBefore), micros(c.NotAfter), micros(c.Deadline), c.SPKISHA256, c.TBSSHA256,
		blob(c.CSR), blob(c.Sealed), c.Entry)
	if err == nil && n == 0 {
		err = ErrSerialTaken
	}
	for _, name := range c.SANs.All() {
		if err == nil {
			_, err = tx.exec("INSERT INTO san (name, intent) VALUES ($1, $2) ON CONFLICT DO NOTHING", name, tx.index)
		}
	}
	if err != nil {
		return fmt.Errorf("reserving serial %s: %w", c.Serial, err)
	}
	return tx.BindRequest(Request{c.Caller, c.RequestID, IssueMethod, c.BodySHA256, c.Serial, tx.index})
}

// Complete ends an open intent with the signed certificate in DER, and gives what the books say then. If a
// revocation was asked for meanwhile, the certificate is revoked at once, now, and the revocation is returned.
func (tx *Tx) Complete(serial cert.Serial, der []byte) (Certificate, *audit.Revocation, error) {
	c, err := tx.intent(serial)
	if err != nil {
		return Certificate{}, nil, fmt.Errorf("completing serial %s: %w", serial, err)
	}
	var revocation *audit.Revocation
	c.State, c.RevokedAt = StateLive, time.Time{}
	if c.RevokeAsked {
		c.State, c.RevokedAt = StateRevoked, tx.now.Truncate(time.Second)
		revocation = &audit.Revocation{Serial: serial, Issuer: c.Issuer, At: c.RevokedAt, Reason: c.Reason}
	}
	c.DER, c.Done, c.RevokeAsked = der, tx.index, false
	_, err = tx.exec("UPDATE certificate SET state = $1, der = $2, done = $3, revoke_asked = 0, revoked_at = $4 WHERE intent = $5",
		c.State, blob(der), c.Done, micros(c.RevokedAt), c.Intent)
	if err != nil {
		return Certificate{}, nil, fmt.Errorf("completing serial %s: %w", serial, err)
	}
	return c, revocation, nil
}

// Abandon ends an open intent whose serial number the key room has voided. The request id is free
// again, unless it was asked to revoke what would come of it, and the sealed secrets are gone: they belong to a key
// that was never certified.
func (tx *Tx) Abandon(serial cert.Serial) error {
	c, err := tx.intent(serial)
	if err != nil {
		return fmt.Errorf("abandoning serial %s: %w", serial, err)
	}
	_, err = tx.exec(`UPDATE certificate SET state = 'abandoned', done = $1, sealed = NULL, revoke_asked = 0, revoked_at = 0, reason = 0
		WHERE intent = $2`, tx.index, c.Intent)
	if err != nil {
		return fmt.Errorf("abandoning serial %s: %w", serial, err)
	}
	if c.RevokeAsked {
		return nil
	}
	_, err = tx.exec("DELETE FROM request WHERE caller = $1 AND id = $2 AND serial = $3", c.Caller, c.RequestID, serial)
	if err != nil {
		return fmt.Errorf("freeing the request id of serial %s: %w", serial, err)
	}
	return nil
}

// Revoke revokes a live certificate, and asks for the revocation of an open intent, as of at in whole
// seconds. What is revoked, or asked to be, can change its reason where cert.Reason.CanBecome allows;
// the date stays. Otherwise it returns ErrAlreadyRevoked, and ErrAbandoned for what was never signed.
// The answer is what the books say afterwards.
func (tx *Tx) Revoke(serial cert.Serial, at time.Time, reason cert.Reason) (audit.Revocation, error) {
	r, err := tx.revoke(serial, at.UTC().Truncate(time.Second), reason)
	if err != nil {
		return audit.Revocation{}, fmt.Errorf("revoking serial %s: %w", serial, err)
	}
	return r, nil
}

func (tx *Tx) revoke(serial cert.Serial, at time.Time, reason cert.Reason) (audit.Revocation, error) {
	if !reason.Valid() || at.Unix() <= 0 {
		return audit.Revocation{}, fmt.Errorf("reason %d at %s: not a revocation", int(reason), at)
	}
	c, err := tx.certificate(serial)
	if err != nil {
		return audit.Revocation{}, err
	}
	state := c.State
	switch {
	case c.State == StateAbandoned:
		return audit.Revocation{}, ErrAbandoned
	case c.State == StateRevoked || c.RevokeAsked:
		if c.Reason == reason || !c.Reason.CanBecome(reason) {
			return audit.Revocation{}, ErrAlreadyRevoked
		}
		at = c.RevokedAt
	case c.State == StateLive:
		state = StateRevoked
	}
	_, err = tx.exec("UPDATE certificate SET state = $1, revoke_asked = $2, revoked_at = $3, reason = $4 WHERE intent = $5",
		state, state == StateOpen, micros(at), int(reason), c.Intent)
	if err != nil {
		return audit.Revocation{}, err
	}
	return audit.Revocation{Serial: serial, Issuer: c.Issuer, At: at, Reason: reason}, nil
}

// Release takes a revoked certificate off hold, so that it is live again. It returns ErrNotHeld for
// everything else: no other revocation ends. The answer says of which issuer it is.
func (tx *Tx) Release(serial cert.Serial) (audit.Release, error) {
	c, err := tx.certificate(serial)
	if err == nil && (c.State != StateRevoked || c.Reason != cert.CertificateHold) {
		err = ErrNotHeld
	}
	if err == nil {
		_, err = tx.exec("UPDATE certificate SET state = 'live', released_hold = revoked_at, revoked_at = 0, reason = 0 WHERE intent = $1", c.Intent)
	}
	if err != nil {
		return audit.Release{}, fmt.Errorf("releasing serial %s: %w", serial, err)
	}
	return audit.Release{Serial: serial, Issuer: c.Issuer}, nil
}

func (tx *Tx) certificate(serial cert.Serial) (Certificate, error) {
	if serial == "" {
		return Certificate{}, ErrUnknownSerial
	}
	found, err := tx.Find(Query{Serial: serial})
	if err != nil {
		return Certificate{}, err
	}
	if len(found) == 0 {
		return Certificate{}, ErrUnknownSerial
	}
	return found[0], nil
}

func (tx *Tx) intent(serial cert.Serial) (Certificate, error) {
	c, err := tx.certificate(serial)
	if err == nil && c.State != StateOpen {
		err = fmt.Errorf("%w: it is %s", ErrNotOpen, c.State)
	}
	return c, err
}
