package rpc

import (
	"crypto"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/audit"
)

// SignatureHeader is where a caller who signs its requests puts the signature of one: the time at which it was
// made, in seconds since 1970, a space, and the signature of audit.SignedText in base64.
const SignatureHeader = "Chancery-Signature"

// signatureTime is how far the time of a signature may be from the clock.
const signatureTime = 5 * time.Minute

// newSigners reads the public keys of a caller who signs.
func newSigners(texts []string) (keys []crypto.PublicKey, wrong []*ConfigError) {
	for i, text := range texts {
		key, err := audit.ParseSigningKey(text)
		if err != nil {
			wrong = append(wrong, &ConfigError{fmt.Sprintf("signing_keys[%d]", i), err})
		}
		keys = append(keys, key)
	}
	return keys, wrong
}

// checkSignature checks a request of a caller who signs, and keeps it for the log.
func (s *Server) checkSignature(rq *request, r *http.Request, body []byte) *fault {
	if len(rq.caller.signers) == 0 {
		return nil
	}
	unsigned := func(word, format string, args ...any) *fault {
		return &fault{codeUnsigned, "signature." + word, fmt.Sprintf(format, args...)}
	}
	if rq.transport != "jsonrpc" {
		return unsigned("transport", "requests of %s are signed, and signed requests are JSON-RPC", rq.caller.name)
	}
	given := r.Header.Values(SignatureHeader)
	if len(given) != 1 {
		return unsigned("missing", "requests of %s are signed: want one header %s with the time and the signature", rq.caller.name, SignatureHeader)
	}
	if len(body) > audit.MaxSignedBody {
		return unsigned("body", "a signed request of %d octets; want at most %d", len(body), audit.MaxSignedBody)
	}
	seconds, signature, _ := strings.Cut(given[0], " ")
	at, err := strconv.ParseInt(seconds, 10, 64)
	octets, bad := base64.StdEncoding.Strict().DecodeString(signature)
	if err != nil || bad != nil {
		return unsigned("malformed", "%s: want the seconds since 1970, a space, and base64", SignatureHeader)
	}
	signed := audit.SignedRequest{At: time.Unix(at, 0).UTC(), Body: body, Signature: octets}
	if age := s.now().Sub(signed.At); age > signatureTime || age < -signatureTime {
		return unsigned("time", "signed at %s, and it is %s; look at the clock, or sign again", signed.At.Format(time.RFC3339), s.now().UTC().Format(time.RFC3339))
	}
	if err := signed.Verify(s.authority.Root(), rq.caller.name, rq.caller.signers); err != nil {
		return unsigned("wrong", "%v", err)
	}
	rq.signed = &signed
	return nil
}
