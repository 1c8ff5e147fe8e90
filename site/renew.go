package site

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/ca/profile"
	"github.com/chancery-ca/chancery/crashpoint"
)

// renewEvery is how often the service looks at its own certificate, and so how soon a renewal that failed
// is tried again.
const renewEvery = time.Hour

// renewer is who asks for the service's own certificates. No caller can have a name with a dot.
const renewer = "service.renewal"

// renewal holds what the RPC is served with, and renews it while connections go on. The certificate that was
// renewed is not revoked: nobody else has its key, and it ends by itself.
type renewal struct {
	config    Config
	authority *ca.Authority
	log       *zap.Logger
	own       *atomic.Pointer[identity]
}

func (p *parts) renewal() *renewal {
	return &renewal{config: p.config, authority: p.authority, log: p.log, own: &p.own}
}

// run renews in time until ctx ends.
func (r *renewal) run(ctx context.Context) error {
	r.look(ctx, time.Now())
	return every(ctx, renewEvery, func() { r.look(ctx, time.Now()) })
}

func (r *renewal) look(ctx context.Context, now time.Time) {
	old := r.own.Load().pair.Leaf
	if now.Before(renewAt(old)) {
		return
	}
	fields := []zap.Field{zap.String("code", codeExpiryService), zap.String("subject", old.Subject.CommonName), zap.Time("not_after", old.NotAfter)}
	if err := r.renew(ctx, old); err != nil {
		if ctx.Err() == nil {
			r.log.Error("the service's own certificate is not renewed", append(fields, zap.Error(err))...)
		}
		return
	}
	next := r.own.Load().pair.Leaf
	r.log.Info("the service's own certificate is renewed", append(fields,
		zap.String("serial", string(cert.SerialOf(next.SerialNumber))), zap.Time("until", next.NotAfter))...)
}

// renewAt is when a certificate is renewed: after two thirds of its life, or up to a twentieth earlier, as
// its serial number draws it, so that many services do not come at once.
func renewAt(c *x509.Certificate) time.Time {
	life := c.NotAfter.Sub(c.NotBefore)
	jitter := new(big.Int).Mod(c.SerialNumber, big.NewInt(max(1, int64(life/20))))
	return c.NotBefore.Add(life*2/3 - time.Duration(jitter.Int64()))
}

// renew has a certificate with the names of the old one issued the normal way, for a new key, and serves
// with it from then on.
//
// The key is on the disk before anything is asked for it, and the request is named after it and the old
// serial number: whatever a crash interrupts, the next try has the same key and gets the same certificate.
// Both get their place in one rename.
func (r *renewal) renew(ctx context.Context, old *x509.Certificate) error {
	key, text, err := r.draft()
	if err != nil {
		return fmt.Errorf("making the key: %w", err)
	}
	issued, err := r.issue(ctx, old, key)
	if err != nil {
		return fmt.Errorf("issuing for %s: %w", old.Subject.CommonName, err)
	}
	for _, der := range [][]byte{issued.Certificate, issued.Chain[0]} {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	pair, err := tls.X509KeyPair(text, text)
	if err != nil {
		return fmt.Errorf("joining key and certificate: %w", err)
	}
	if err := r.replace(text); err != nil {
		return fmt.Errorf("keeping key and certificate: %w", err)
	}
	r.own.Store(newIdentity(pair))
	return nil
}

func (r *renewal) draftPath() string { return r.config.renewed() + ".next" }

// draft gives the key for the next certificate and its PEM: the one of a try that a crash interrupted, or a
// new one. What is there and is no key was cut off while it was written, before anything was asked for it.
func (r *renewal) draft() (crypto.Signer, []byte, error) {
	text, err := os.ReadFile(r.draftPath())
	if err == nil {
		if block, rest := pem.Decode(text); block != nil {
			if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
				if signer, ok := key.(crypto.Signer); ok {
					return signer, text[:len(text)-len(rest)], nil
				}
			}
		}
		err = os.Remove(r.draftPath())
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	key, err := cert.GenerateKey(rand.Reader, cert.P256)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	text = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	crashpoint.Before("service.draft")
	if err := writeNew(r.draftPath(), 0o600, text); err != nil {
		return nil, nil, err
	}
	if err := syncFolder(r.config.State); err != nil {
		return nil, nil, err
	}
	crashpoint.After("service.draft")
	return key, text, nil
}

func (r *renewal) issue(ctx context.Context, old *x509.Certificate, key crypto.Signer) (*ca.Issued, error) {
	n, err := name.Canonical(cert.Server, old.Subject.CommonName)
	if err != nil {
		return nil, err
	}
	had := cert.SANs{DNS: old.DNSNames}
	for _, ip := range old.IPAddresses {
		had.IP = append(had.IP, ip.String())
	}
	sans, err := name.CanonicalSANs(cert.Server, n, had)
	if err != nil {
		return nil, err
	}
	csr, err := profile.MakeCSR(rand.Reader, key, n.Text)
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	sum := cert.SHA256(spki) // a CSR is another one each time, the key is not
	call := ca.Call{
		Who: audit.Actor{Kind: audit.ByDaemon, Name: renewer}, Rule: renewer, BodySHA256: sum,
		RequestID: "renew-" + string(cert.SerialOf(old.SerialNumber)) + "-" + sum[:16],
	}
	return r.authority.Issue(ctx, call, ca.IssueRequest{Purpose: cert.Server, Name: n, SANs: sans, CSR: csr})
}

// replace puts text, which begins with the key as it is in the draft, into the place of the renewed pair.
// Nothing that a crash leaves of the draft touches the key in it.
func (r *renewal) replace(text []byte) error {
	f, err := os.OpenFile(r.draftPath(), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	crashpoint.Before("service.replace")
	_, err = f.WriteAt(text, 0)
	if err == nil {
		err = f.Truncate(int64(len(text)))
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(r.draftPath(), r.config.renewed()); err != nil {
		return err
	}
	crashpoint.After("service.replace")
	return syncFolder(r.config.State)
}
