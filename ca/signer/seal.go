package signer

import (
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// DeliveryKey is the key that subjects' secrets are sealed to. The zero value is none: the room opens
// nothing, and nothing is sealed.
type DeliveryKey struct {
	Public string    `json:"public"` // X25519, hex
	Until  time.Time `json:"until"`  // until then it is the newest; what is sealed to it later opens for a shorter time
}

// KeyID names a delivery key in what is sealed to it.
type KeyID [8]byte

// KeyIDOf names a public key: the first octets of the SHA-256 of its 32.
func KeyIDOf(public *ecdh.PublicKey) KeyID {
	sum := sha256.Sum256(public.Bytes())
	return KeyID(sum[:])
}

// Binding is what sealed secrets are bound to: they open only for a retry of the same request by the
// same caller.
type Binding struct {
	Caller     string `json:"caller"`
	RequestID  string `json:"request_id"`
	BodySHA256 string `json:"body_sha256"`
}

// Info is the HPKE info of secrets sealed under b to a delivery key (RFC 9180 section 5.1).
func (b Binding) Info(to KeyID) ([]byte, error) {
	text, err := json.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("encoding a binding: %w", err)
	}
	return append([]byte("chancery delivery v1 "+hex.EncodeToString(to[:])+" "), text...), nil
}

// Seal encrypts secrets to a delivery key of the room: HPKE base mode with DHKEM(X25519, HKDF-SHA256),
// HKDF-SHA256 and AES-256-GCM (RFC 9180), behind the KeyID. Only the room can open the result, only under b,
// and only while it has that key.
func Seal(deliveryKey string, b Binding, secrets []byte) ([]byte, error) {
	raw, err := hex.DecodeString(deliveryKey)
	if err != nil {
		return nil, fmt.Errorf("reading the delivery key: %w", err)
	}
	public, err := ecdh.X25519().NewPublicKey(raw)
	if err != nil {
		return nil, fmt.Errorf("reading the delivery key: %w", err)
	}
	recipient, err := hpke.NewDHKEMPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("taking up the delivery key: %w", err)
	}
	to := KeyIDOf(public)
	info, err := b.Info(to)
	if err != nil {
		return nil, err
	}
	sealed, err := hpke.Seal(recipient, hpke.HKDFSHA256(), hpke.AES256GCM(), info, secrets)
	if err != nil {
		return nil, err
	}
	return append(to[:], sealed...), nil
}

// SealedTo names the key that secrets are sealed to. What it says is only true if they open.
func SealedTo(sealed []byte) (to KeyID, ok bool) {
	return to, copy(to[:], sealed) == len(to)
}

// Unseal decrypts what Seal encrypted to a key.
func Unseal(deliveryKey *ecdh.PrivateKey, b Binding, sealed []byte) ([]byte, error) {
	to, ok := SealedTo(sealed)
	if !ok || to != KeyIDOf(deliveryKey.PublicKey()) {
		return nil, errors.New("they are sealed to another key")
	}
	private, err := hpke.NewDHKEMPrivateKey(deliveryKey)
	if err != nil {
		return nil, fmt.Errorf("taking up the delivery key: %w", err)
	}
	info, err := b.Info(to)
	if err != nil {
		return nil, err
	}
	return hpke.Open(private, hpke.HKDFSHA256(), hpke.AES256GCM(), info, sealed[len(to):])
}
