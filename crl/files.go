package crl

import (
	"bytes"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/crl/gitrepo"
	"github.com/chancery-ca/chancery/crl/list"
	"github.com/chancery-ca/chancery/store"
)

// The files in the folder. README.md is for the person who finds it.
const (
	readmeFile     = "README.md"
	bundleFile     = "bundle.crl.pem"
	manifestFile   = "manifest.json"
	checkpointFile = "checkpoint"
	chainFile      = "ca/chain.pem"
)

func derFile(i cert.Issuer) string { return string(i) + ".crl" }
func pemFile(i cert.Issuer) string { return string(i) + ".crl.pem" }

const readme = `# Certificates and revocation lists

Written by the certificate authority. Edits here are put back.

- bundle.crl.pem: one full CRL for every CA of the chain, for servers that want one file
- NAME.crl, NAME.crl.pem: the same lists one by one, DER and PEM
- rehash/: the same lists under the names that OpenSSL's CApath looks for
- ca/: the certificates of the CAs
- manifest.json: numbers, times and checksums, for people; the lists themselves are what counts
- checkpoint: a signed commitment to the CA's audit log; every clone of this repository is a witness

Check a list before you install it: its signature, that its number is not lower than the installed
one's, and that it has not expired.
`

// manifest is manifest.json. Nothing reads it back as truth.
type manifest struct {
	Lists []manifestList    `json:"lists"`
	Files map[string]string `json:"files"` // SHA-256
}

type manifestList struct {
	Issuer     cert.Issuer `json:"issuer"`
	Number     string      `json:"number"`
	ThisUpdate time.Time   `json:"this_update"`
	NextUpdate time.Time   `json:"next_update"`
	Entries    int         `json:"entries"`
}

// files gives the content of the folder but for the checkpoint. The same lists give the same bytes.
func (l *Loop) files(lists []store.List, root *list.List) (gitrepo.Files, error) {
	files := gitrepo.Files{readmeFile: []byte(readme)}
	m := manifest{Files: make(map[string]string)}
	var bundle [][]byte
	var chain []byte
	authorities := l.chain()
	for _, i := range authorities {
		der, row, err := l.listOf(i, lists, root)
		if err != nil {
			return nil, err
		}
		bundle = append(bundle, der)
		m.Lists = append(m.Lists, row)
		text := list.EncodePEM(der)
		files[derFile(i.id)], files[pemFile(i.id)] = der, text
		hash, err := subjectHash(i.cert)
		if err != nil {
			return nil, err
		}
		files["rehash/"+hash+".r0"] = text
		certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.cert.Raw})
		files["ca/"+string(i.id)+".pem"] = certificate
		chain = append(chain, certificate...)
	}
	files[chainFile] = chain
	files[bundleFile] = list.EncodeBundle(bundle...)
	if err := l.checkBundle(files[bundleFile], authorities); err != nil {
		return nil, fmt.Errorf("the bundle is not published: %w", err)
	}
	for path, content := range files {
		m.Files[path] = cert.SHA256(content)
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing the manifest: %w", err)
	}
	files[manifestFile] = append(text, '\n')
	return files, nil
}

// chain gives the CAs whose lists stand in the folder, the root last.
func (l *Loop) chain() []*authority { return append(slices.Clone(l.issuers), l.root) }

func (l *Loop) listOf(i *authority, lists []store.List, root *list.List) ([]byte, manifestList, error) {
	if i == l.root {
		return root.Raw, manifestList{i.id, root.Number.String(), root.ThisUpdate, root.NextUpdate, len(root.Entries)}, nil
	}
	for _, kept := range lists {
		if kept.Issuer == i.id {
			return kept.DER, manifestList{i.id, kept.Number, kept.ThisUpdate, kept.NextUpdate, kept.Entries}, nil
		}
	}
	return nil, manifestList{}, fmt.Errorf("issuer %s has no list yet", i.id)
}

// checkBundle applies the rules that consumers' own checks apply.
func (l *Loop) checkBundle(bundle []byte, authorities []*authority) error {
	chain := make([]*x509.Certificate, len(authorities))
	for i, a := range authorities {
		chain[i] = a.cert
	}
	return list.CheckBundle(bundle, chain, l.store.Now())
}

// subjectHash is the name under which OpenSSL looks a CA's list up in a folder (X509_NAME_hash): the
// first four octets, little-endian, of the SHA-1 of the subject in OpenSSL's canonical form, in which
// strings are UTF-8, lower-case, and have single inner spaces.
func subjectHash(c *x509.Certificate) (string, error) {
	var name pkix.RDNSequence
	if _, err := asn1.Unmarshal(c.RawSubject, &name); err != nil {
		return "", fmt.Errorf("reading the subject of a CA: %w", err)
	}
	var canonical bytes.Buffer
	for _, set := range name {
		for i, attribute := range set {
			text, ok := attribute.Value.(string)
			if !ok {
				return "", fmt.Errorf("the subject %s has a value that is not a string", c.Subject)
			}
			text = strings.ToLower(strings.Join(strings.Fields(text), " "))
			set[i].Value = asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte(text)}
		}
		der, err := asn1.Marshal(set)
		if err != nil {
			return "", fmt.Errorf("encoding the subject %s: %w", c.Subject, err)
		}
		canonical.Write(der)
	}
	sum := sha1.Sum(canonical.Bytes())
	return fmt.Sprintf("%08x", binary.LittleEndian.Uint32(sum[:4])), nil
}
