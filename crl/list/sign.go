package list

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/big"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

// The AlgorithmIdentifiers of the signatures on a list, DER.
const (
	ecdsaSHA256 = "\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02"             // RFC 5758 section 3.2
	ecdsaSHA384 = "\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03"             // the same
	rsaSHA256   = "\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00" // RFC 4055 section 5
	pureEd25519 = "\x30\x05\x06\x03\x2b\x65\x70"                                 // RFC 8410 section 3
)

// roomForRest is more than the signature and the headers around it take.
const roomForRest = 1024

// Template is the head of a list. The issuer's subject, key identifier and kind of key decide the
// list's issuer, authority key identifier and algorithm.
type Template struct {
	Issuer     *x509.Certificate
	Number     *big.Int  // positive, at most MaxNumberOctets
	ThisUpdate time.Time // whole seconds, as is NextUpdate
	NextUpdate time.Time
}

// Sign encodes and signs a list and gives its DER; SignTo says how.
func Sign(rand io.Reader, t Template, entries []byte, key crypto.Signer) ([]byte, error) {
	var buf bytes.Buffer
	buf.Grow(len(entries) + roomForRest)
	if err := SignTo(&buf, rand, t, entries, key); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// SignTo signs a list and writes its DER to w, in a few large writes. entries is the concatenation of
// what AppendEntry wrote, one per serial number, in time order. They are hashed where they are and not
// looked into, so that a list costs the hash of its octets and one signature; that there is one entry
// per serial number is the caller's business.
//
// Nothing is written before the signature has been checked with the issuer's public key: a signature
// made by a fault can give away the key.
func SignTo(w io.Writer, rand io.Reader, t Template, entries []byte, key crypto.Signer) error {
	algorithm, err := t.check(key)
	if err != nil {
		return fmt.Errorf("signing a list: %w", err)
	}
	if err := wholeEntries(entries); err != nil {
		return fmt.Errorf("signing a list: %w", err)
	}
	head, tail, err := t.encode(algorithm, len(entries))
	if err != nil {
		return fmt.Errorf("signing a list: %w", err)
	}
	if n := len(head) + len(entries) + len(tail); n+roomForRest > MaxSize {
		return fmt.Errorf("signing a list: %d octets are more than a list may have", n)
	}
	message, opts := digest(algorithm, head, entries, tail)
	signature, err := key.Sign(rand, message, opts)
	if err != nil {
		return fmt.Errorf("signing a list: %w", err)
	}
	if !verify(t.Issuer.PublicKey, message, signature) {
		return errors.New("signing a list: the signature just made does not verify")
	}
	tail = append(tail, algorithm...)
	tail = append(tail, element(tagBitString, []byte{0}, signature)...)
	head = append(appendHeader(nil, tagSequence, len(head)+len(entries)+len(tail)), head...)
	for _, part := range [][]byte{head, entries, tail} {
		if _, err := w.Write(part); err != nil {
			return fmt.Errorf("writing a list: %w", err)
		}
	}
	return nil
}

// check refuses a template that cannot become a list which Verify and Current accept, and a key that
// is not the issuer's.
func (t Template) check(key crypto.Signer) (algorithm string, err error) {
	if err := maySign(t.Issuer); err != nil {
		return "", err
	}
	public, ok := t.Issuer.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(key.Public()) {
		return "", errors.New("the key is not that of the issuer's certificate")
	}
	if t.Number == nil || t.Number.Sign() <= 0 || t.Number.BitLen() > 8*MaxNumberOctets-1 {
		return "", fmt.Errorf("the number is not positive or longer than %d octets", MaxNumberOctets)
	}
	if !t.NextUpdate.After(t.ThisUpdate) {
		return "", errors.New("nextUpdate is not after thisUpdate")
	}
	return algorithmOf(t.Issuer.PublicKey)
}

// encode gives what stands before and after the entries in the signed part, its header included.
// revokedCertificates is absent when there are none (RFC 5280 section 5.1.2.6).
func (t Template) encode(algorithm string, entries int) (head, tail []byte, err error) {
	this, err := encodeTime(t.ThisUpdate)
	if err != nil {
		return nil, nil, fmt.Errorf("thisUpdate: %w", err)
	}
	next, err := encodeTime(t.NextUpdate)
	if err != nil {
		return nil, nil, fmt.Errorf("nextUpdate: %w", err)
	}
	fields := element(tagInteger, []byte{1}) // version 2
	fields = append(fields, algorithm...)
	fields = append(fields, t.Issuer.RawSubject...)
	fields = append(fields, this...)
	fields = append(fields, next...)
	if entries > 0 {
		fields = appendHeader(fields, tagSequence, entries)
	}
	keyID := element(tagSequence, element(tagKeyID, t.Issuer.SubjectKeyId))
	number := element(tagInteger, positive(t.Number.Bytes()))
	tail = element(tagExtensions, element(tagSequence, extension(oidKeyID, keyID), extension(oidNumber, number)))
	head = appendHeader(nil, tagSequence, len(fields)+entries+len(tail))
	return append(head, fields...), tail, nil
}

// wholeEntries walks over the headers of the entries: half an entry, from a file cut short, must not
// be signed. What AppendEntry writes is always shorter than 128 octets.
func wholeEntries(entries []byte) error {
	for i := 0; i < len(entries); {
		if len(entries)-i < 2 || entries[i] != tagSequence || entries[i+1] >= 0x80 {
			return fmt.Errorf("no entry at octet %d", i)
		}
		i += 2 + int(entries[i+1])
		if i > len(entries) {
			return errors.New("the last entry is cut")
		}
	}
	return nil
}

// maySign tells whether lists of this issuer can be signed and told apart.
func maySign(issuer *x509.Certificate) error {
	switch {
	case !issuer.BasicConstraintsValid || !issuer.IsCA:
		return errors.New("the issuer's certificate is not that of a CA")
	case issuer.KeyUsage&x509.KeyUsageCRLSign == 0:
		return errors.New("the issuer's certificate has no key usage cRLSign (RFC 5280 section 4.2.1.3)")
	case len(issuer.SubjectKeyId) == 0:
		return errors.New("the issuer's certificate has no subject key identifier")
	}
	return nil
}

// algorithmOf gives the one algorithm with which a key signs lists.
func algorithmOf(public crypto.PublicKey) (string, error) {
	kind, err := cert.KeyTypeOf(public)
	if err != nil {
		return "", err
	}
	switch kind {
	case cert.P256:
		return ecdsaSHA256, nil
	case cert.P384:
		return ecdsaSHA384, nil
	case cert.RSA2048, cert.RSA3072:
		return rsaSHA256, nil
	case cert.Ed25519:
		return pureEd25519, nil
	}
	return "", fmt.Errorf("no algorithm to sign lists with a %s key", kind)
}

// digest gives what is signed of a message in parts: its hash, or for Ed25519 the message itself.
func digest(algorithm string, parts ...[]byte) ([]byte, crypto.SignerOpts) {
	var h hash.Hash
	var opts crypto.Hash
	switch algorithm {
	case ecdsaSHA256, rsaSHA256:
		h, opts = sha256.New(), crypto.SHA256
	case ecdsaSHA384:
		h, opts = sha512.New384(), crypto.SHA384
	default:
		return bytes.Join(parts, nil), opts
	}
	for _, part := range parts {
		h.Write(part)
	}
	return h.Sum(nil), opts
}

// verify checks a signature over what digest gave. The algorithm is that of the key's kind.
func verify(public crypto.PublicKey, message, signature []byte) bool {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, message, signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, crypto.SHA256, message, signature) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(k, message, signature)
	}
	return false
}
