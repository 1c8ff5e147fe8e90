package ca

import (
	"fmt"
	"sort"
	"strings"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"
)

// lintSources are the rules that bind a private CA. The rules of the CA/Browser Forum and of root
// programs are about public trust, which this CA does not ask for.
func lintSources() lint.SourceList {
	return lint.SourceList{lint.RFC3279, lint.RFC5280, lint.RFC5480, lint.RFC5891, lint.RFC8813, lint.Community}
}

// linter reads precertificates with zlint before anything is put on the log.
type linter struct{ registry lint.Registry }

func newLinter() (*linter, error) {
	registry, err := lint.GlobalRegistry().Filter(lint.FilterOptions{IncludeSources: lintSources()})
	if err != nil {
		return nil, fmt.Errorf("choosing lints: %w", err)
	}
	return &linter{registry}, nil
}

// check refuses a precertificate, DER, that any lint finds an error in.
func (l *linter) check(der []byte) error {
	parsed, err := zx509.ParseCertificate(der)
	if err != nil {
		return refuse("lint.failed", "the certificate that would be signed cannot be read back; ask with plainer names, or tell the operator of the CA")
	}
	results := zlint.LintCertificateEx(parsed, l.registry)
	if !results.ErrorsPresent && !results.FatalsPresent {
		return nil
	}
	var found []string
	for name, r := range results.Results {
		if r.Status == lint.Error || r.Status == lint.Fatal {
			found = append(found, name)
		}
	}
	sort.Strings(found)
	return refuse("lint.failed", "the certificate that would be signed breaks: %s; ask with plainer names, or tell the operator of the CA", strings.Join(found, ", "))
}
