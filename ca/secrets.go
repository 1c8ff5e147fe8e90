package ca

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/chancery-ca/chancery/ca/cert"
)

// secrets are what only the subject may have. They are sealed to the key room's delivery key of
// the hour before the intent is durable, so that a retry gets the same answer and nothing else can open them.
type secrets struct {
	Key      []byte   `json:"key"` // PKCS#8
	Password string   `json:"password"`
	Seed     [32]byte `json:"seed"` // of the salts in the PKCS#12: a retry gets the same octets

	key any // Key, parsed
}

func newSecrets(random io.Reader, key crypto.Signer) (*secrets, error) {
	s := secrets{key: key}
	var err error
	if s.Key, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return nil, fmt.Errorf("encoding the subject's key: %w", err)
	}
	if s.Password, err = cert.NewPassword(random); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(random, s.Seed[:]); err != nil {
		return nil, fmt.Errorf("drawing salts: %w", err)
	}
	return &s, nil
}

func (s *secrets) marshal() ([]byte, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encoding the subject's secrets: %w", err)
	}
	return text, nil
}

func parseSecrets(text []byte) (*secrets, error) {
	var s secrets
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("decoding the subject's secrets: %w", err)
	}
	var err error
	if s.key, err = x509.ParsePKCS8PrivateKey(s.Key); err != nil {
		return nil, fmt.Errorf("reading the subject's key: %w", err)
	}
	return &s, nil
}

// pkcs12 packs key, certificate and chain under the password: PBES2 with AES-256-CBC and HMAC-SHA-256,
// the newest form that all readers in use accept. 2,048 iterations are enough because the password has
// 150 random bits.
func (s *secrets) pkcs12(certificate []byte, chain ...*x509.Certificate) ([]byte, error) {
	leaf, err := x509.ParseCertificate(certificate)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate: %w", err)
	}
	packed, err := pkcs12.Modern2023.WithRand(rand.NewChaCha8(s.Seed)).Encode(s.key, leaf, chain, s.Password)
	if err != nil {
		return nil, fmt.Errorf("packing the PKCS#12: %w", err)
	}
	return packed, nil
}
