package audit

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

// SignedRequest is a request that its caller signed with a key that no part of the service has, as it came. With
// the caller's public key anybody can tell from the log alone that the caller asked for this.
type SignedRequest struct {
	At        time.Time `json:"at"`                  // whole seconds: when it was signed, as the caller says
	Body      []byte    `json:"body,omitempty"`      // the octets of the JSON-RPC request
	Signature []byte    `json:"signature,omitempty"` // of SignedText: Ed25519, or ECDSA with SHA-256 in DER
}

// MaxSignedBody is the longest body of a signed request, in octets: it stands on the log.
const MaxSignedBody = 16 << 10

// SignedText is what a caller signs: five lines, with the version, the fingerprint of the installation's root
// certificate, the caller's name, the time in seconds since 1970, and the SHA-256 of the body in lower-case hex.
func SignedText(root cert.Fingerprint, caller string, at time.Time, body []byte) []byte {
	return fmt.Appendf(nil, "chancery-request-v1\n%s\n%s\n%d\n%x\n", root, caller, at.Unix(), sha256.Sum256(body))
}

// Verify checks that one of a caller's keys, ed25519.PublicKey or *ecdsa.PublicKey, made the signature, for the
// installation with this root. It does not look at the time, nor at what the body asks for.
func (r SignedRequest) Verify(root cert.Fingerprint, caller string, keys []crypto.PublicKey) error {
	text := SignedText(root, caller, r.At, r.Body)
	sum := sha256.Sum256(text)
	for _, key := range keys {
		switch key := key.(type) {
		case ed25519.PublicKey:
			if ed25519.Verify(key, text, r.Signature) {
				return nil
			}
		case *ecdsa.PublicKey:
			if ecdsa.VerifyASN1(key, sum[:], r.Signature) {
				return nil
			}
		}
	}
	return fmt.Errorf("no signing key of %s made the signature of the request, under the root with the SHA-256 %s", caller, root)
}

// ParseSigningKey reads the public key of a caller: a SubjectPublicKeyInfo in DER, as base64 on one line, of an
// Ed25519 or P-256 key.
func ParseSigningKey(text string) (crypto.PublicKey, error) {
	der, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, errors.New("want the public key in DER as base64 on one line: openssl pkey -in FILE -pubout -outform DER | base64 -w0")
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("reading a public key: %w", err)
	}
	switch key := key.(type) {
	case ed25519.PublicKey:
		return key, nil
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() {
			return key, nil
		}
	}
	return nil, errors.New("want an Ed25519 or a P-256 key")
}

// asked is what a signed request asks for, of what the log can be compared with.
type asked struct {
	Method string
	Params struct {
		Purpose   cert.Purpose `json:"purpose"`
		CN        string       `json:"cn"`
		Serial    cert.Serial  `json:"serial"`
		RequestID string       `json:"request_id"`
		SANs      cert.SANs    `json:"sans"`
		CSR       string       `json:"csr"`
		KeyType   cert.KeyType `json:"key_type"`
		ValidDays int          `json:"valid_days"`
		Max       int          `json:"max"`
		Plan      bool         `json:"plan"`
	}
}

func (r SignedRequest) asked() (a asked, err error) {
	var call struct {
		Method string          `json:"method"`
		Params json.RawMessage `json:"params"`
	}
	if json.Unmarshal(r.Body, &call) != nil {
		return a, errors.New("the signed request is not JSON-RPC")
	}
	a.Method = call.Method
	if list := bytes.TrimSpace(call.Params); len(list) > 0 && list[0] == '[' {
		var one []json.RawMessage
		if json.Unmarshal(list, &one) != nil || len(one) != 1 {
			return a, errors.New("the signed request has not exactly one parameter")
		}
		call.Params = one[0]
	}
	if json.Unmarshal(call.Params, &a.Params) != nil {
		return a, errors.New("the signed request has no parameter, or one that is not as its method wants it")
	}
	if a.Params.Plan {
		return a, errors.New("the signed request asks for a plan only")
	}
	return a, nil
}

// CheckRequest tells in what an intent is not what its signed request asks for; nil if it has none. Names have to
// be spelled in canonical form there. The names of a renewal are those of another certificate, and not looked at.
func (e *IssueIntent) CheckRequest() error { return e.CheckRetry(e.Request) }

// CheckRetry is CheckRequest for the request of a retry, which is signed anew and asks for the same.
func (e *IssueIntent) CheckRetry(request *SignedRequest) error {
	if request == nil {
		return nil
	}
	a, err := request.asked()
	if err != nil {
		return err
	}
	p := a.Params
	switch {
	case p.RequestID != e.RequestID:
		return fmt.Errorf("the signed request has the request_id %.128q", p.RequestID)
	case e.Renews == "" && a.Method != "ca.issue", e.Renews != "" && a.Method != "ca.renew":
		return fmt.Errorf("the signed request is one for %.40q", a.Method)
	case p.Purpose != e.Purpose && (e.Renews == "" || p.Purpose != ""):
		return fmt.Errorf("the signed request is for the purpose %.20q", string(p.Purpose))
	case p.CN != e.CN && (e.Renews == "" || p.Serial != e.Renews):
		return fmt.Errorf("the signed request has the name %.64q, and the certificate %q", p.CN, e.CN)
	case e.Renews == "" && !sameNames(p.SANs, e.SANs, e.CN):
		return errors.New("the signed request has other further names, or spells them otherwise, than the certificate")
	case p.KeyType != "" && p.KeyType != e.KeyType:
		return fmt.Errorf("the signed request wants a key of the type %.20q", string(p.KeyType))
	case p.ValidDays > 0 && e.NotAfter.Sub(e.NotBefore) >= time.Duration(p.ValidDays)*24*time.Hour:
		return fmt.Errorf("the signed request wants %d days", p.ValidDays)
	}
	return checkKey(p.CSR, e)
}

// CheckRequest tells in what a retry's signed request is not one for a certificate under its request_id; nil if it has
// none. A caller gives that id to nothing else, so what else it asks for is left to CheckRetry of the intent.
func (e *IssueRedelivered) CheckRequest() error {
	if e.Request == nil {
		return nil
	}
	a, err := e.Request.asked()
	if err != nil {
		return err
	}
	if a.Method != "ca.issue" && a.Method != "ca.renew" || a.Params.RequestID != e.RequestID {
		return fmt.Errorf("the signed request is one for %.40q with the request_id %.128q", a.Method, a.Params.RequestID)
	}
	return nil
}

// sameNames compares the names that were asked for with those of a certificate. That its common name is one of its
// host names goes without asking.
func sameNames(asked, given cert.SANs, cn string) bool {
	within := func(some, all []string, free string) bool {
		return !slices.ContainsFunc(some, func(one string) bool { return one != free && !slices.Contains(all, one) })
	}
	for _, kind := range []struct {
		asked, given []string
		free         string
	}{{asked.DNS, given.DNS, cn}, {asked.IP, given.IP, ""}, {asked.Email, given.Email, ""}, {asked.URI, given.URI, ""}} {
		if !within(kind.asked, kind.given, kind.free) || !within(kind.given, kind.asked, kind.free) {
			return false
		}
	}
	return true
}

// checkKey compares the key in the CSR of a request with that of an intent.
func checkKey(csr string, e *IssueIntent) error {
	if csr == "" {
		if e.KeyMadeBy != "ca" {
			return errors.New("the signed request brings no key")
		}
		return nil
	}
	der, err := base64.StdEncoding.DecodeString(csr)
	if strings.HasPrefix(strings.TrimSpace(csr), "-----BEGIN") {
		if block, _ := pem.Decode([]byte(csr)); block != nil {
			der, err = block.Bytes, nil
		}
	}
	if err != nil {
		return errors.New("the CSR of the signed request is neither base64 nor PEM")
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return errors.New("the CSR of the signed request is not a PKCS #10 request in DER")
	}
	if e.KeyMadeBy != "caller" || cert.SHA256(request.RawSubjectPublicKeyInfo) != e.SPKISHA256 {
		return errors.New("the signed request brings another key")
	}
	return nil
}

// DefaultMax is how many certificates one request may hit that does not say.
const DefaultMax = 10

// Named is what a request can call a certificate by, besides its serial.
type Named struct {
	Purpose cert.Purpose
	CN      string
}

// CheckRequest tells in what a release is not what its signed request asks for; nil if it has none. names are those
// of the certificates, as they are released.
func (e *ReleaseDone) CheckRequest(names []Named) error {
	if e.Request == nil {
		return nil
	}
	a, err := e.Request.asked()
	if err != nil {
		return err
	}
	p := a.Params
	if a.Method != "ca.release" || p.RequestID != e.RequestID {
		return fmt.Errorf("the signed request is one for %.40q with the request_id %.128q", a.Method, p.RequestID)
	}
	if len(e.Released) > cmp.Or(p.Max, DefaultMax) {
		return fmt.Errorf("the signed request does not allow to release %d certificates", len(e.Released))
	}
	for i, one := range e.Released {
		named := p.CN != "" && p.CN == names[i].CN && (p.Purpose == "" || p.Purpose == names[i].Purpose)
		if p.Serial != one.Serial && !named {
			return fmt.Errorf("the signed request does not name certificate %s as the certificate does", one.Serial)
		}
	}
	return nil
}
