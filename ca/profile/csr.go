package profile

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"io"
	"slices"
)

// MaxCSR is the size in octets of the largest CSR that CheckCSR reads.
const MaxCSR = 16 << 10

// CheckCSR reads a PKCS #10 request (RFC 2986) in DER and checks that whoever made it holds the
// private key. A CSR gives a certificate its public key and nothing else: a list of requested
// extensions is tolerated and has no effect, any other attribute is refused, and what the subject
// says is for the caller of this function to compare.
//
// Its errors are *Refusal with the codes csr.malformed, csr.attributes and csr.signature, and those
// of CheckKey.
func CheckCSR(der []byte) (*x509.CertificateRequest, error) {
	if len(der) > MaxCSR {
		return nil, refuse("csr.malformed", "%d octets; want at most %d", len(der), MaxCSR)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, refuse("csr.malformed", "not a PKCS #10 request in DER, or its key is of a kind that there is not here; make a new one")
	}
	attributes, err := strictAttributes(csr)
	if err != nil {
		return nil, err
	}
	// The key first: a signature under a bad key says nothing, and checking it may be slow.
	if err := CheckKey(csr.PublicKey); err != nil {
		return nil, err
	}
	info, err := x509.MarshalPKIXPublicKey(csr.PublicKey)
	if err != nil || !bytes.Equal(info, csr.RawSubjectPublicKeyInfo) {
		return nil, refuse("csr.malformed", "the public key is not in its usual encoding; make the request with other software")
	}
	if err := checkAttributes(attributes); err != nil {
		return nil, err
	}
	if !slices.Contains(csrAlgorithms[:], csr.SignatureAlgorithm) {
		return nil, refuse("csr.signature", "signature algorithm %s; want SHA-2", csr.SignatureAlgorithm)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, refuse("csr.signature", "the signature does not verify under the key of the request; make a new request with that key")
	}
	return csr, nil
}

// csrAlgorithms is here because x509 verifies SHA-1 signatures of CSRs.
var csrAlgorithms = [...]x509.SignatureAlgorithm{
	x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA,
	x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
	x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512,
}

// strictAttributes reads the attributes as they are; x509 leaves out those it does not understand.
// It refuses bytes after the last known member of a SEQUENCE, which encoding/asn1 lets pass.
func strictAttributes(csr *x509.CertificateRequest) ([]asn1.RawValue, error) {
	var outer struct {
		Info      asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	var inner struct {
		Version    int
		Subject    asn1.RawValue
		Key        asn1.RawValue
		Attributes []asn1.RawValue `asn1:"tag:0"`
	}
	for _, part := range []struct {
		raw  []byte
		into any
	}{{csr.Raw, &outer}, {csr.RawTBSCertificateRequest, &inner}} {
		rest, err := asn1.Unmarshal(part.raw, part.into)
		if err != nil || len(rest) > 0 {
			return nil, refuse("csr.malformed", "not a PKCS #10 request in DER; make a new one")
		}
	}
	again, err := asn1.Marshal(inner)
	if err != nil || !bytes.Equal(again, csr.RawTBSCertificateRequest) {
		return nil, refuse("csr.malformed", "the request has members that RFC 2986 does not know; make the request with other software")
	}
	again, err = asn1.Marshal(outer)
	if err != nil || !bytes.Equal(again, csr.Raw) {
		return nil, refuse("csr.malformed", "the request has members that RFC 2986 does not know; make the request with other software")
	}
	if inner.Version != 0 {
		return nil, refuse("csr.malformed", "version %d; want 0 (RFC 2986 section 4.1)", inner.Version)
	}
	return inner.Attributes, nil
}

// checkAttributes lets one extensionRequest (RFC 2985 section 5.4.2) pass. A challengePassword, for
// one, is a secret that must not end up in the books.
func checkAttributes(attributes []asn1.RawValue) error {
	extensionRequest := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14}
	for i, raw := range attributes {
		var a struct {
			Type   asn1.ObjectIdentifier
			Values asn1.RawValue
		}
		if rest, err := asn1.Unmarshal(raw.FullBytes, &a); err != nil || len(rest) > 0 {
			return refuse("csr.malformed", "an attribute is not one; make the request without attributes")
		}
		if i > 0 || !a.Type.Equal(extensionRequest) {
			return refuse("csr.attributes", "attribute %s; want none, or one extensionRequest", a.Type)
		}
	}
	return nil
}

// MakeCSR makes a request for a key that the CA made itself.
func MakeCSR(rand io.Reader, key crypto.Signer, cn string) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand, &x509.CertificateRequest{Subject: pkix.Name{CommonName: cn}}, key)
	if err != nil {
		return nil, fmt.Errorf("making a CSR for %q: %w", cn, err)
	}
	return der, nil
}
