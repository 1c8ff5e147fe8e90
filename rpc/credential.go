package rpc

import (
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Credential is what lets a caller in: a key, or an exact name by a CA. A caller that has some comes in by
// nothing else.
type Credential struct {
	// SPKI is the SHA-256 of a SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7), lower-case hex. The TLS handshake
	// proves the key, so that its certificate may be by anybody, itself included. One that names the callers CA
	// or a foreign CA as its issuer must be by that.
	SPKI string `yaml:"spki,omitempty" json:"spki,omitempty"`
	// Issuer and Subject are distinguished names, as RFC 4514 writes them. Issuer is that of the callers CA or
	// of a foreign CA, which has signed the certificate itself.
	Issuer  string `yaml:"issuer,omitempty" json:"issuer,omitempty"`
	Subject string `yaml:"subject,omitempty" json:"subject,omitempty"`
}

// ForeignCA is somebody else's CA, by whose certificates callers may come in that name them in a credential.
// Nobody asks it what it has revoked: that ends only as it, or the credential, is taken out of the
// configuration.
type ForeignCA struct {
	Name string `yaml:"name"` // for messages
	File string `yaml:"file"` // its certificate, PEM; whoever makes a Config reads it

	Certificate *x509.Certificate `yaml:"-"`
}

// The ways to be known.
const (
	byCN   = "cn"             // a certificate of the callers CA for the caller's name
	byKey  = "spki"           // a pinned key
	byName = "issuer_subject" // an exact name by a CA
)

// credential is one that is configured, or follows from a caller's name, and whose it is.
type credential struct {
	caller  string
	kind    string
	spki    string
	issuer  string // as spelled by spellDN, like subject
	subject string
}

// detail is what its caller is told of it.
func (c *credential) detail() credentialDetail {
	return credentialDetail{c.kind, c.spki, c.issuer, c.subject}
}

// credentials are all of a configuration.
type credentials struct {
	keys  map[string]*credential    // by SHA-256
	names map[[2]string]*credential // by issuer and subject
	bound map[string]bool           // callers whom their name alone does not let in
	at    map[*credential]string    // the key where each stands
}

// newCredentials checks what can be judged without the certificates of the CAs. Errors are ConfigErrors, joined.
func newCredentials(c Config) (*credentials, error) {
	all := &credentials{make(map[string]*credential), make(map[[2]string]*credential), make(map[string]bool), make(map[*credential]string)}
	wrong := checkForeignCAs(c.ForeignCAs)
	for i, caller := range c.Callers {
		at := fmt.Sprintf("callers[%d].credentials", i)
		if caller.Credentials != nil && len(caller.Credentials) == 0 {
			wrong = append(wrong, &ConfigError{at, fmt.Errorf("caller %s: credentials is empty: leave it out, and certificates of the callers CA for %s let it in", caller.Name, caller.Name)})
		}
		all.bound[caller.Name] = len(caller.Credentials) > 0
		for j, conf := range caller.Credentials {
			key := fmt.Sprintf("%s[%d]", at, j)
			one, err := newCredential(caller.Name, conf)
			if err != nil {
				wrong = append(wrong, &ConfigError{key + "." + err.Key, fmt.Errorf("caller %s: %w", caller.Name, err)})
			} else if other := all.add(one); other != "" {
				wrong = append(wrong, &ConfigError{key, fmt.Errorf("caller %s: caller %s has this credential already: one lets in one caller", caller.Name, other)})
			} else {
				all.at[one] = key
			}
		}
	}
	return all, errors.Join(wrong...)
}

// newCredential gives the key of what is wrong relative to the credential.
func newCredential(caller string, conf Credential) (*credential, *ConfigError) {
	c := &credential{caller: caller}
	bad := func(key, format string, args ...any) (*credential, *ConfigError) {
		return nil, &ConfigError{key, fmt.Errorf(key+": "+format, args...)}
	}
	if conf.SPKI != "" {
		if conf.Issuer != "" || conf.Subject != "" {
			return bad("spki", "a credential is a key, or issuer and subject: make two of it")
		}
		if sum, err := hex.DecodeString(conf.SPKI); err != nil || len(sum) != 32 || conf.SPKI != strings.ToLower(conf.SPKI) {
			return bad("spki", "%.80q: want the SHA-256 of a SubjectPublicKeyInfo, 64 digits of 0-9 a-f", conf.SPKI)
		}
		c.kind, c.spki = byKey, conf.SPKI
		return c, nil
	}
	c.kind = byName
	for _, dn := range []struct {
		key, text string
		to        *string
	}{{"issuer", conf.Issuer, &c.issuer}, {"subject", conf.Subject, &c.subject}} {
		var err error
		if dn.text == "" {
			return bad(dn.key, "is missing: a credential is spki, or issuer and subject")
		} else if *dn.to, err = parseDN(dn.text); err != nil {
			return bad(dn.key, "want a distinguished name as in CN=hr,O=Example (RFC 4514): %w", err)
		}
	}
	return c, nil
}

// NameOf is the credential that names a certificate by its issuer and its subject.
func NameOf(c *x509.Certificate) (Credential, error) {
	issuer, err := spellDN(c.RawIssuer)
	if err != nil {
		return Credential{}, fmt.Errorf("the issuer: %w", err)
	}
	subject, err := spellDN(c.RawSubject)
	if err != nil {
		return Credential{}, fmt.Errorf("the subject: %w", err)
	}
	return Credential{Issuer: issuer, Subject: subject}, nil
}

// add gives whose it is already, if it is somebody's.
func (all *credentials) add(c *credential) (other string) {
	if c.kind == byKey {
		if was := all.keys[c.spki]; was != nil {
			return was.caller
		}
		all.keys[c.spki] = c
		return ""
	}
	name := [2]string{c.issuer, c.subject}
	if was := all.names[name]; was != nil {
		return was.caller
	}
	all.names[name] = c
	return ""
}

// match finds the credential that a certificate is, nil for a stranger's.
func (all *credentials) match(s shown) *credential {
	if pinned := all.keys[s.key]; pinned != nil {
		return pinned
	}
	if s.by == nil {
		return nil
	}
	if named := all.names[[2]string{s.by.subject, s.subject}]; named != nil {
		return named
	}
	name := s.leaf.Subject.CommonName
	if s.by.foreign() || all.bound[name] {
		return nil
	}
	return &credential{caller: name, kind: byCN}
}

// wanted is what clients are told of the CAs whose certificates are taken, for those that choose by it. Of a pinned
// key nobody knows who signed for it: then they are told nothing.
func (all *credentials) wanted(cas anchors) *x509.CertPool {
	if len(all.keys) > 0 {
		return nil
	}
	pool := x509.NewCertPool()
	for _, a := range cas {
		pool.AddCert(a.cert)
	}
	return pool
}

// resolve checks that each name is by a CA that there is, and could be one that it gives.
func (all *credentials) resolve(cas anchors) error {
	var wrong []error
	for c, key := range all.at {
		if c.kind != byName {
			continue
		}
		by := cas.named(c.issuer)
		if by == nil {
			wrong = append(wrong, &ConfigError{key + ".issuer", fmt.Errorf("caller %s: issuer: there is no CA %q; there are: %s", c.caller, c.issuer, cas)})
		} else if own, _ := parseDN("CN=" + c.caller); !by.foreign() && c.subject != own {
			wrong = append(wrong, &ConfigError{key + ".subject", fmt.Errorf("caller %s: subject: a certificate of the callers CA for this caller has the subject %q", c.caller, own)})
		}
	}
	slices.SortFunc(wrong, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(wrong...)
}
