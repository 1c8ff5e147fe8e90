package profile

import (
	"crypto/x509"
	"slices"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

const day = 24 * time.Hour

// rules are what a purpose decides.
type rules struct {
	title    string // of an issuing CA in its DN
	usages   []x509.ExtKeyUsage
	standard time.Duration
	longest  time.Duration
}

// rulesOf holds the table in the package comment, and the validities. A person's certificate may last
// what the S/MIME baseline requirements allow (825 days), a machine's thirteen months. The default for
// servers is short because a machine can renew by itself.
func rulesOf(p cert.Purpose) (rules, error) {
	switch p {
	case cert.User:
		return rules{
			title:    "Users",
			usages:   []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageEmailProtection},
			standard: 365 * day, longest: 825 * day,
		}, nil
	case cert.Server:
		return rules{
			title: "Servers", usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
			standard: 90 * day, longest: 397 * day,
		}, nil
	case cert.Caller:
		return rules{
			title: "Callers", usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
			standard: 365 * day, longest: 397 * day,
		}, nil
	}
	return rules{}, refuse("purpose.unknown", "there is no purpose %q", clip(string(p)))
}

// keyUsage goes by what the key can do and what it is for: an EC key enciphers nothing (RFC 8813
// section 3), and a key for client authentication alone only signs (RFC 5280 section 4.2.1.12).
func keyUsage(kind cert.KeyType, usages []x509.ExtKeyUsage) x509.KeyUsage {
	rsa := kind == cert.RSA2048 || kind == cert.RSA3072
	enciphers := slices.Contains(usages, x509.ExtKeyUsageServerAuth) || slices.Contains(usages, x509.ExtKeyUsageEmailProtection)
	if rsa && enciphers {
		return x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	}
	return x509.KeyUsageDigitalSignature
}

// leafUsages leaves emailProtection out where there is no mailbox to protect.
func (r rules) leafUsages(names cert.SANs) []x509.ExtKeyUsage {
	if len(names.Email) > 0 {
		return r.usages
	}
	return slices.DeleteFunc(slices.Clone(r.usages), func(u x509.ExtKeyUsage) bool {
		return u == x509.ExtKeyUsageEmailProtection
	})
}

// allowedBy tells whether an issuing CA with these extended key usages is for the purpose. A CA
// without any is for none. The callers' CA is the trust anchor of the RPC, and a user's usages
// contain a caller's: so nothing but clientAuth may stand in it, and a user's CA must have both.
func (r rules) allowedBy(p cert.Purpose, issuer []x509.ExtKeyUsage) bool {
	if p == cert.Caller && len(issuer) != 1 {
		return false
	}
	for _, u := range r.usages {
		if !slices.Contains(issuer, u) {
			return false
		}
	}
	return true
}
