package site

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// renewedFile is the service's renewed key, certificate and chain in the folder of the state, one PEM file
// so that it is replaced as a whole. The folder of secrets may be read-only.
const renewedFile = "service.pem"

func (c Config) renewed() string { return filepath.Join(c.State, renewedFile) }

// ownPair is what the RPC is served with: the younger of the renewed pair, if there is one, and the pair in
// the folder of secrets, so that an operator can put another one there. Without either, fs.ErrNotExist is in
// the error's chain.
func (c Config) ownPair() (tls.Certificate, error) {
	secret, err := tls.LoadX509KeyPair(c.secret(serverCertFile), c.secret(serverKeyFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return secret, fmt.Errorf("reading the service's own certificate %s: %w", c.secret(serverCertFile), err)
	}
	text, none := os.ReadFile(c.renewed())
	if errors.Is(none, fs.ErrNotExist) {
		if err != nil {
			err = fmt.Errorf("reading the service's own certificate: %w", err)
		}
		return secret, err
	}
	if none != nil {
		return secret, fmt.Errorf("reading the service's renewed certificate: %w", none)
	}
	renewed, bad := tls.X509KeyPair(text, text)
	if bad != nil {
		return secret, fmt.Errorf("reading the service's renewed certificate %s: %w; remove the file, and the daemon renews %s again",
			c.renewed(), bad, c.secret(serverCertFile))
	}
	if err == nil && secret.Leaf.NotBefore.After(renewed.Leaf.NotBefore) {
		return secret, nil
	}
	return renewed, nil
}

// ownCertificate is the one that the RPC is served with.
func (c Config) ownCertificate() (*x509.Certificate, error) {
	pair, err := c.ownPair()
	return pair.Leaf, err
}
