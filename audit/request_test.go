package audit_test

import (
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
)

// TestSignedRequestThatCannotBeRead: what is wrong with it reaches its caller, and not in the words of a decoder.
func TestSignedRequestThatCannotBeRead(t *testing.T) {
	for _, body := range []string{
		"", "<", `{"params":["x"]}`, `{"params":{},"method":1}`,
		`{"method":"ca.issue","params":{"valid_days":"many"}}`,
		`{"method":"ca.issue","params":{"csr":"AAAA"}}`, `{"method":"ca.issue","params":{"csr":"?"}}`,
	} {
		e := audit.IssueIntent{Request: &audit.SignedRequest{Body: []byte(body)}, NotBefore: ledgerStart, NotAfter: ledgerStart.Add(time.Hour)}
		err := e.CheckRequest()
		if err == nil || !strings.HasPrefix(err.Error(), "the ") {
			t.Errorf("%s: %v", body, err)
			continue
		}
		for _, foreign := range []string{"json", "invalid character", "asn1", "x509", "illegal", "unexpected end"} {
			if strings.Contains(err.Error(), foreign) {
				t.Errorf("%s: %v", body, err)
			}
		}
	}
}
