package keyroom

import (
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/note"
)

// noteSigner signs checkpoints with an Ed25519 key that rests as PKCS#8.
type noteSigner struct {
	note.Verifier // name and key hash
	key           ed25519.PrivateKey
}

func (s noteSigner) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(s.key, msg), nil }

// logSigner makes the signer of a key and gives its verifier key.
func logSigner(name string, key crypto.PrivateKey) (note.Signer, string, error) {
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, "", errors.New("the log key is not an Ed25519 key")
	}
	vkey, err := note.NewEd25519VerifierKey(name, private.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, "", fmt.Errorf("naming the log key: %w", err)
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, "", fmt.Errorf("reading the log key: %w", err)
	}
	return noteSigner{verifier, private}, vkey, nil
}
