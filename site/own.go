package site

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// renewedFile is the service's renewed key, certificate and chain in the folder of the state, one PEM file
// so that it is replaced as a whole. The folder of secrets may be read-only.
const renewedFile = "service.pem"

func (c Config) renewed() string { return filepath.Join(c.State, renewedFile) }

// errOwnPair marks that what the RPC is served with cannot be read.
var errOwnPair = errors.New("reading the service's own certificate")

// ownPair is what the RPC is served with, and the file of its certificate: the younger of the renewed pair,
// if there is one, and the pair in the folder of secrets, so that an operator can put another one there.
// Errors are errOwnPair.
func (c Config) ownPair() (pair tls.Certificate, path string, err error) {
	path = c.secret(serverCertFile)
	pair, err = tls.LoadX509KeyPair(path, c.secret(serverKeyFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return pair, path, fmt.Errorf("%w, %s: %w", errOwnPair, path, err)
	}
	text, none := os.ReadFile(c.renewed())
	if errors.Is(none, fs.ErrNotExist) {
		if err != nil {
			err = fmt.Errorf("%w: %w", errOwnPair, err)
		}
		return pair, path, err
	}
	if none != nil {
		return pair, c.renewed(), fmt.Errorf("%w: %w", errOwnPair, none)
	}
	renewed, bad := tls.X509KeyPair(text, text)
	if bad != nil {
		return pair, c.renewed(), fmt.Errorf("%w, renewed, %s: %w; remove the file, and the daemon renews %s again",
			errOwnPair, c.renewed(), bad, path)
	}
	if err == nil && pair.Leaf.NotBefore.After(renewed.Leaf.NotBefore) {
		return pair, path, nil
	}
	return renewed, c.renewed(), nil
}

// identity is what the RPC is served with, and the host names that it is for.
type identity struct {
	pair  tls.Certificate
	hosts []string
}

func (c Config) identity() (*identity, error) {
	pair, _, err := c.ownPair()
	if err != nil {
		return nil, err
	}
	return newIdentity(pair), nil
}

func newIdentity(pair tls.Certificate) *identity {
	own := &identity{pair: pair}
	for _, host := range append([]string{pair.Leaf.Subject.CommonName}, pair.Leaf.DNSNames...) {
		own.hosts = append(own.hosts, strings.ToLower(host))
	}
	return own
}

// serve takes up an identity, unless a renewal has put a younger one there meanwhile.
func (p *parts) serve(own *identity) {
	for {
		was := p.own.Load()
		if was != nil && was.pair.Leaf.NotBefore.After(own.pair.Leaf.NotBefore) || p.own.CompareAndSwap(was, own) {
			return
		}
	}
}

// ownHosts gives the host names of the service's own certificate; none while init has not made it yet.
func (p *parts) ownHosts() []string {
	if own := p.own.Load(); own != nil {
		return own.hosts
	}
	return nil
}
