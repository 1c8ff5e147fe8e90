package site

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-ca/chancery/credential"
)

// checkKeys looks whether what belongs together fits. Ends are checkExpiry's: here every certificate is
// judged at a time when it was valid.
func (e *examination) checkKeys(ctx context.Context) ([]Finding, error) {
	var found []Finding
	for _, look := range []func(context.Context) ([]Finding, error){e.serverKey, e.gitKey, e.logKey, e.issuers, e.roomKeys, e.signingKeys} {
		some, err := look(ctx)
		found = append(found, some...)
		if err != nil {
			return found, err
		}
	}
	return found, nil
}

// roomKeys looks whether everything is there that the key room reads when it starts. Whether it is right the
// room itself says.
func (e *examination) roomKeys(context.Context) ([]Finding, error) {
	var found []Finding
	for _, path := range e.roomNeeds() {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			found = append(found, e.find("key.room", path, "%v", err))
		}
	}
	return found, nil
}

// signingKeys looks whether both halves of the service know the same keys of callers who sign: what only one of them
// wants is less than whoever wrote it thinks, or is refused.
func (e *examination) signingKeys(context.Context) ([]Finding, error) {
	hello, err := e.hello()
	if err != nil || e.unusable != nil {
		return nil, nil //nolint:nilerr // of which checkService and checkConfig tell
	}
	wanted := make(map[string][]string)
	for _, c := range e.config.Callers {
		wanted[c.Name] = c.SigningKeys
	}
	names := slices.AppendSeq(slices.Collect(maps.Keys(wanted)), maps.Keys(hello.SigningKeys)) // who is no caller may be misspelt
	slices.Sort(names)
	var found []Finding
	for _, name := range slices.Compact(names) {
		if !slices.Equal(slices.Sorted(slices.Values(wanted[name])), slices.Sorted(slices.Values(hello.SigningKeys[name]))) {
			found = append(found, e.find("key.signing", name, "chancery.yaml has %d signing keys of %s, and the key room %d, and they are not the same", len(wanted[name]), name, len(hello.SigningKeys[name])))
		}
	}
	return found, nil
}

// roomNeeds gives the files without which the key room does not start; none for a user who may not read
// keyroom.json and so does not know where they are, and none if their folder is gone, which checkDisk tells.
func (e *examination) roomNeeds() []string {
	_, room, err := loadRoomFiles(e.dir)
	if _, gone := os.Stat(room.State); err != nil || gone != nil {
		return nil
	}
	var files []string
	if !credential.Named(room.PassphraseFile) { // a credential is there while the unit runs
		files = append(files, room.PassphraseFile)
	}
	for _, name := range []string{"journal", "log.key"} {
		files = append(files, filepath.Join(room.State, name))
	}
	return files
}

func (e *examination) serverKey(context.Context) ([]Finding, error) {
	pair, path, err := e.config.ownPair()
	if err != nil {
		return e.unusableFile("key.server", path, err)
	}
	roots, err := readCertificates(e.config.trusted("root.pem"))
	if err != nil {
		return e.unusableFile("key.server_chain", e.config.trusted("root.pem"), err)
	}
	var above []*x509.Certificate
	for _, der := range pair.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return e.unusableFile("key.server", path, err)
		}
		above = append(above, c)
	}
	var found []Finding
	if err := chains(pair.Leaf, above, roots); err != nil {
		found = append(found, e.find("key.server_chain", path, "%v", err))
	}
	host, _, _ := net.SplitHostPort(e.config.Listen)                               // LoadConfig has checked it
	if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) { // otherwise it is everywhere
		if err := pair.Leaf.VerifyHostname(host); err != nil {
			found = append(found, e.find("key.server_name", path, "%v", err))
		}
	}
	return found, nil
}

// unusableFile makes a finding of a file that is not there or not what it should be; one that this user
// may not read stays an error.
func (e *examination) unusableFile(code, path string, err error) ([]Finding, error) {
	if errors.Is(err, fs.ErrPermission) {
		return nil, err
	}
	return []Finding{e.find(code, path, "%v", err)}, nil
}

// chains verifies a certificate as of its own beginning.
func chains(c *x509.Certificate, above, roots []*x509.Certificate) error {
	o := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(),
		CurrentTime: c.NotBefore.Add(time.Second), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	for _, r := range roots {
		o.Roots.AddCert(r)
	}
	for _, i := range above {
		o.Intermediates.AddCert(i)
	}
	_, err := c.Verify(o)
	return err
}

func (e *examination) gitKey(context.Context) ([]Finding, error) {
	path := e.config.secret(gitKeyFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return e.unusableFile("key.git", path, err)
	}
	key, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return e.unusableFile("key.git", path, err)
	}
	trusted := e.config.trusted("allowed_signers")
	signers, err := os.ReadFile(trusted)
	if err != nil {
		return e.unusableFile("key.git", trusted, err)
	}
	if public := bytes.TrimSpace(ssh.MarshalAuthorizedKey(key.PublicKey())); !bytes.Contains(signers, public) {
		return []Finding{e.find("key.git", path, "%s does not name %s", trusted, ssh.FingerprintSHA256(key.PublicKey()))}, nil
	}
	return nil, nil
}

func (e *examination) logKey(ctx context.Context) ([]Finding, error) {
	path := e.config.trusted("log.pub")
	pinned, err := e.config.LogKey()
	if err != nil {
		return e.unusableFile("key.log", path, err)
	}
	var found []Finding
	if hello, err := e.hello(); err == nil && hello.LogKey != pinned {
		found = append(found, e.find("key.log", path, "the key room signs the log with %s", hello.LogKey))
	}
	if _, err := e.store(); err != nil {
		return found, nil //nolint:nilerr // of which checkService tells
	}
	opened, err := e.opened(ctx)
	if err == nil && opened.LogKey != pinned {
		found = append(found, e.find("key.log", path, "the log was opened with %s", opened.LogKey))
	}
	return found, err
}

// issuers verifies the CAs that the key room names, and those in trust/.
func (e *examination) issuers(context.Context) ([]Finding, error) {
	path := e.config.trusted("root.pem")
	roots, err := readCertificates(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // serverKey has said so
	} else if err != nil {
		return e.unusableFile("key.root", path, err)
	}
	var found []Finding
	judge := func(whose string, der []byte) {
		c, err := x509.ParseCertificate(der)
		if err == nil {
			err = chains(c, nil, roots)
		}
		if err != nil {
			found = append(found, e.find("key.issuer", whose, "%v", err))
		}
	}
	chain, err := readCertificates(e.config.trusted("chain.pem"))
	if err != nil {
		some, err := e.unusableFile("key.issuer", e.config.trusted("chain.pem"), err)
		if found = append(found, some...); err != nil {
			return found, err
		}
	}
	for _, c := range chain {
		judge(fmt.Sprintf("%s in %s", strings.TrimSpace(c.Subject.CommonName), e.config.trusted("chain.pem")), c.Raw)
	}
	hello, err := e.hello()
	if err != nil {
		return found, nil //nolint:nilerr // of which checkService tells
	}
	if !bytes.Equal(hello.Root, roots[0].Raw) {
		found = append(found, e.find("key.root", path, "the key room's root is another certificate"))
	}
	for _, i := range hello.Issuers {
		judge("issuer "+string(i.ID), i.Certificate)
	}
	return found, nil
}
