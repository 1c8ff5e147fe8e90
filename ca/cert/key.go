package cert

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
)

// KeyType is a kind of key as people write it.
type KeyType string

// The key types.
const (
	P256    KeyType = "P-256"
	P384    KeyType = "P-384"
	RSA2048 KeyType = "RSA-2048"
	RSA3072 KeyType = "RSA-3072"
	Ed25519 KeyType = "Ed25519"
)

// SubjectKeyTypes lists the kinds of key that a certificate can be issued for, the default first.
func SubjectKeyTypes() []KeyType { return []KeyType{P256, P384, RSA2048, RSA3072} }

// ParseKeyType reads a kind of subject key.
func ParseKeyType(s string) (KeyType, error) {
	for _, k := range SubjectKeyTypes() {
		if string(k) == s {
			return k, nil
		}
	}
	return "", fmt.Errorf("key type %q: want P-256, P-384, RSA-2048 or RSA-3072", clip(s))
}

// GenerateKey makes a key of one of the kinds. rand is a CSPRNG.
func GenerateKey(rand io.Reader, kind KeyType) (crypto.Signer, error) {
	switch kind {
	case P256:
		return ecdsa.GenerateKey(elliptic.P256(), rand)
	case P384:
		return ecdsa.GenerateKey(elliptic.P384(), rand)
	case RSA2048:
		return rsa.GenerateKey(rand, 2048)
	case RSA3072:
		return rsa.GenerateKey(rand, 3072)
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand)
		return key, err
	}
	return nil, fmt.Errorf("key type %q cannot be made", clip(string(kind)))
}

// KeyTypeOf names the kind of a public key: EC on P-256 or P-384, RSA of exactly 2048 or 3072 bits with
// exponent 65537, or Ed25519. Any other key is an error. Which kinds a certificate may be issued for,
// SubjectKeyTypes says.
func KeyTypeOf(public crypto.PublicKey) (KeyType, error) {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return P256, nil
		case elliptic.P384():
			return P384, nil
		}
		return "", errors.New("an EC key on another curve than P-256 and P-384")
	case *rsa.PublicKey:
		return rsaType(k)
	case ed25519.PublicKey:
		return Ed25519, nil
	}
	return "", fmt.Errorf("a key of an unknown kind (%T)", public)
}

func rsaType(k *rsa.PublicKey) (KeyType, error) {
	if k.E != 65537 {
		return "", fmt.Errorf("an RSA key with exponent %d; want 65537", k.E)
	}
	switch k.N.BitLen() {
	case 2048:
		return RSA2048, nil
	case 3072:
		return RSA3072, nil
	}
	return "", fmt.Errorf("an RSA key of %d bits; want 2048 or 3072", k.N.BitLen())
}
