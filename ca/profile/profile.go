// Package profile says what a certificate of each purpose contains: a request in, TBS bytes out.
//
// The daemon and the key room run the same code. The daemon builds the TBS to put its hash into the
// log and to lint the precertificate; the key room builds it again from the log and signs only if
// the hashes agree. So for one issuer and one request the TBS is always the same bytes.
//
// Names reach this package in canonical form. It is the last line before a signature all the same:
// crypto/x509 encodes nearly everything it is handed, so whatever must never stand in a certificate
// is refused here, as a *Refusal. It imports ca/cert and the standard library only, because the key
// room links it.
//
// A certificate of any purpose is version 3 with the subject CN=name and nothing else, critical
// basicConstraints CA:FALSE, the key identifiers of both keys, and:
//
//	purpose  key usage (critical)                   extended key usage           names
//	user     digitalSignature, RSA keyEncipherment  clientAuth, emailProtection  email
//	server   digitalSignature, RSA keyEncipherment  serverAuth                   dns (one is the CN), ip
//	caller   digitalSignature                       clientAuth                   none
//
// A user without a mail address gets no keyEncipherment, no emailProtection and no subject alternative
// name.
package profile

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

// Refusal says that a request, a key or a CSR is one that no certificate may be made from. Code is a
// stable word, Reason a sentence for people.
type Refusal struct{ Code, Reason string }

// Error gives the code and the reason.
func (r *Refusal) Error() string { return r.Code + ": " + r.Reason }

func refuse(code, format string, args ...any) error {
	return &Refusal{Code: code, Reason: fmt.Sprintf(format, args...)}
}

// Request is everything that a certificate depends on besides its issuer.
type Request struct {
	Serial    cert.Serial
	Purpose   cert.Purpose
	CN        string
	SANs      cert.SANs
	Public    crypto.PublicKey // the subject's
	NotBefore time.Time        // whole seconds
	NotAfter  time.Time        // whole seconds, the last one at which the certificate is valid
	CRLURL    string           // http; "" means no CRL distribution point
}

// Builder builds TBS bytes for one issuer. It signs precertificates with a throwaway key of the
// issuer's kind, which never leaves it; an RSA key takes a while to draw, so keep the Builder. It is
// safe for concurrent use if its rand is.
type Builder struct {
	rand      io.Reader
	issuer    *x509.Certificate
	scheme    scheme
	throwaway crypto.Signer
	parent    *x509.Certificate // the issuer's name and key identifier over the throwaway key
}

// NewBuilder takes the certificate of an issuing CA as IssuerCert makes it and draws the throwaway
// key from rand, a CSPRNG.
func NewBuilder(issuer *x509.Certificate, rand io.Reader) (*Builder, error) {
	kind, how, err := authorityKey(issuer.PublicKey)
	if err != nil {
		return nil, err
	}
	if err := checkIssuer(issuer); err != nil {
		return nil, err
	}
	throwaway, err := cert.GenerateKey(rand, kind)
	if err != nil {
		return nil, fmt.Errorf("making a throwaway key: %w", err)
	}
	return &Builder{
		rand: rand, issuer: issuer, scheme: how, throwaway: throwaway,
		// x509.CreateCertificate takes only the private key of the parent it is given.
		parent: &x509.Certificate{
			RawSubject: issuer.RawSubject, SubjectKeyId: issuer.SubjectKeyId, PublicKey: throwaway.Public(),
		},
	}, nil
}

// Precertificate gives the certificate under the throwaway key's signature, for zlint to read, and
// the TBS in it: the bytes that Seal will sign. An error that is a *Refusal is about r.
func (b *Builder) Precertificate(r Request) (der, tbs []byte, err error) {
	if err := b.check(r); err != nil {
		return nil, nil, err
	}
	template, err := b.template(r)
	if err != nil {
		return nil, nil, err
	}
	der, err = x509.CreateCertificate(b.rand, template, b.parent, r.Public, b.throwaway)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding a certificate for %q: %w", r.CN, err)
	}
	// x509 encodes some templates that it cannot read back.
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("reading back the certificate for %q: %w", r.CN, err)
	}
	if err := checkLeaf(parsed, b.issuer); err != nil {
		return nil, nil, err
	}
	return der, parsed.RawTBSCertificate, nil
}

func (b *Builder) template(r Request) (*x509.Certificate, error) {
	rules, err := rulesOf(r.Purpose)
	if err != nil {
		return nil, err
	}
	kind, err := cert.KeyTypeOf(r.Public)
	if err != nil {
		return nil, refuse("key.type", "%v", err)
	}
	id, err := keyID(r.Public)
	if err != nil {
		return nil, err
	}
	usages := rules.leafUsages(r.SANs)
	t := &x509.Certificate{
		SignatureAlgorithm:    b.scheme.x509,
		SerialNumber:          r.Serial.Int(),
		Subject:               pkix.Name{CommonName: r.CN},
		NotBefore:             r.NotBefore.UTC(),
		NotAfter:              r.NotAfter.UTC(),
		KeyUsage:              keyUsage(kind, usages),
		ExtKeyUsage:           usages,
		BasicConstraintsValid: true,
		SubjectKeyId:          id,
		DNSNames:              r.SANs.DNS,
		EmailAddresses:        r.SANs.Email,
	}
	for _, text := range r.SANs.IP {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return nil, refuse("san.ip", "%q is no IP address", clip(text))
		}
		t.IPAddresses = append(t.IPAddresses, net.IP(addr.AsSlice()))
	}
	if r.CRLURL != "" {
		t.CRLDistributionPoints = []string{r.CRLURL}
	}
	return t, nil
}

// keyID is the key identifier by method 1 of RFC 7093 section 2: the leftmost 160 bits of the
// SHA-256 of the subjectPublicKey BIT STRING's contents.
func keyID(public crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, refuse("key.type", "the public key cannot be encoded")
	}
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return nil, fmt.Errorf("reading a subjectPublicKeyInfo: %w", err)
	}
	sum := sha256.Sum256(info.Key.Bytes)
	return sum[:20], nil
}

// checkLeaf says what holds for every end-entity certificate of an issuer, whoever encoded it. A
// leaf that is a CA would undo every other rule.
func checkLeaf(leaf, issuer *x509.Certificate) error {
	switch {
	case leaf.Version != 3 || !leaf.BasicConstraintsValid || leaf.IsCA:
		return errors.New("the TBS is not that of an end-entity certificate")
	case !bytes.Equal(leaf.RawIssuer, issuer.RawSubject):
		return errors.New("the TBS names another issuer")
	case !bytes.Equal(leaf.AuthorityKeyId, issuer.SubjectKeyId):
		return errors.New("the TBS names another issuer's key")
	}
	return nil
}
