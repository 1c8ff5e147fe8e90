package signer

import (
	"crypto/ecdh"
	"crypto/hpke"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// Binding is what sealed secrets are bound to: they open only for a retry of the same request by the
// same caller.
type Binding struct {
	Caller     string `json:"caller"`
	RequestID  string `json:"request_id"`
	BodySHA256 string `json:"body_sha256"`
}

// Info is the HPKE info of secrets sealed under b (RFC 9180 section 5.1).
func (b Binding) Info() ([]byte, error) {
	text, err := json.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("encoding a binding: %w", err)
	}
	return append([]byte("chancery delivery v1 "), text...), nil
}

// Seal encrypts secrets to the room's delivery key: HPKE base mode with DHKEM(X25519, HKDF-SHA256),
// HKDF-SHA256 and AES-256-GCM (RFC 9180). Only the room can open the result, and only under b.
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
	info, err := b.Info()
	if err != nil {
		return nil, err
	}
	return hpke.Seal(recipient, hpke.HKDFSHA256(), hpke.AES256GCM(), info, secrets)
}

// Unseal decrypts what Seal encrypted.
func Unseal(deliveryKey *ecdh.PrivateKey, b Binding, sealed []byte) ([]byte, error) {
	private, err := hpke.NewDHKEMPrivateKey(deliveryKey)
	if err != nil {
		return nil, fmt.Errorf("taking up the delivery key: %w", err)
	}
	info, err := b.Info()
	if err != nil {
		return nil, err
	}
	return hpke.Open(private, hpke.HKDFSHA256(), hpke.AES256GCM(), info, sealed)
}
