package profile

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"

	"github.com/chancery-ca/chancery/ca/cert"
)

// scheme is how a CA key of one kind signs.
type scheme struct {
	x509       x509.SignatureAlgorithm
	identifier pkix.AlgorithmIdentifier
	hash       crypto.Hash
}

// schemeOf covers the kinds that a CA key may have. It is said here, not left to x509's default for
// the key, because the identifier stands in the TBS.
func schemeOf(kind cert.KeyType) (scheme, error) {
	switch kind {
	case cert.P256: // RFC 5758 section 3.2: no parameters
		id := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}}
		return scheme{x509.ECDSAWithSHA256, id, crypto.SHA256}, nil
	case cert.P384:
		id := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}}
		return scheme{x509.ECDSAWithSHA384, id, crypto.SHA384}, nil
	case cert.RSA3072: // RFC 4055 section 5: parameters NULL
		id := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, Parameters: asn1.NullRawValue}
		return scheme{x509.SHA256WithRSA, id, crypto.SHA256}, nil
	}
	return scheme{}, refuse("key.type", "a CA key is P-256, P-384 or RSA-3072, not %s", kind)
}

// authorityKey checks the public key of a CA.
func authorityKey(public crypto.PublicKey) (cert.KeyType, scheme, error) {
	if err := CheckKey(public); err != nil {
		return "", scheme{}, err
	}
	kind, err := cert.KeyTypeOf(public)
	if err != nil {
		return "", scheme{}, refuse("key.type", "%v", err)
	}
	how, err := schemeOf(kind)
	return kind, how, err
}

// Seal signs tbs with the issuer's key and gives the certificate. Before it asks the key it checks
// that tbs is an end-entity certificate's and names this issuer; before it returns it verifies the
// signature, because a faulty one can give an RSA key away.
func Seal(rand io.Reader, issuer *x509.Certificate, tbs []byte, key crypto.Signer) (der []byte, err error) {
	_, how, err := authorityKey(issuer.PublicKey)
	if err != nil {
		return nil, err
	}
	public, ok := issuer.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(key.Public()) {
		return nil, errors.New("sealing: the key is not the issuer's")
	}
	if _, _, err := assemble(tbs, how, nil, issuer); err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	h := how.hash.New()
	h.Write(tbs)
	signature, err := key.Sign(rand, h.Sum(nil), how.hash)
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	der, sealed, err := assemble(tbs, how, signature, issuer)
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	if err := sealed.CheckSignatureFrom(issuer); err != nil {
		return nil, fmt.Errorf("sealing: checking the signature just made: %w", err)
	}
	return der, nil
}

func assemble(tbs []byte, how scheme, signature []byte, issuer *x509.Certificate) ([]byte, *x509.Certificate, error) {
	der, err := asn1.Marshal(struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: tbs}, how.identifier, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}})
	if err != nil {
		return nil, nil, fmt.Errorf("encoding the certificate: %w", err)
	}
	// The parser refuses a TBS whose own algorithm identifier is another one (RFC 5280 section 4.1.1.2).
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the TBS: %w", err)
	}
	if !bytes.Equal(parsed.RawTBSCertificate, tbs) {
		return nil, nil, errors.New("the TBS is followed by other bytes")
	}
	return der, parsed, checkLeaf(parsed, issuer)
}
