package keyroom

import (
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/profile"
	"github.com/chancery-ca/chancery/crl/list"
)

// rootListDays is the life of a CRL of the offline root: a year, and time to notice.
const rootListDays = 400

// Ceremony is what the making of the keys depends on.
type Ceremony struct {
	Dir               string
	Org               string
	Domains           []string       // constrain the names of certificates; empty: any name
	Hosts             []string       // further names that servers may have where Domains are given
	Networks          []netip.Prefix // addresses that servers may have where Domains are given
	OfflinePassphrase string         // opens the keys in Dir/offline
	Now               func() time.Time
	Rand              io.Reader
}

// Init makes everything with keys in a folder that holds none of it yet: keyroom.json, keyroom/,
// offline/, trust/ and the key room's passphrase in secrets/. The root key signs itself, the issuing
// CAs and one CRL, and is not kept but in offline/.
func (c Ceremony) Init() error {
	random := make([]byte, 6)
	if _, err := io.ReadFull(c.Rand, random); err != nil {
		return fmt.Errorf("drawing the room's identity: %w", err)
	}
	id := hex.EncodeToString(random)
	m := &maker{Ceremony: c, room: "room-" + id, origin: c.originHost() + "/chancery/" + id}
	for _, dir := range []string{"keyroom", "offline", "secrets", "trust"} {
		mode := os.FileMode(0o700)
		if dir == "trust" {
			mode = 0o755
		}
		if err := os.Mkdir(filepath.Join(c.Dir, dir), mode); err != nil {
			return fmt.Errorf("making %s: %w (an installation is never overwritten)", dir, err)
		}
	}
	for _, step := range []func() error{m.passphrases, m.logKeys, m.rootAuthority, m.issuingAuthorities, m.firstRecord, m.config, m.syncFolders} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (c Ceremony) originHost() string {
	if len(c.Domains) > 0 {
		return c.Domains[0]
	}
	return "ca.internal"
}

// maker carries what one step of a ceremony leaves for the next.
type maker struct {
	Ceremony
	room, origin string
	passphrase   string
	recoveryKey  string
	root         *x509.Certificate
	rootKey      crypto.Signer
	chain        []byte // PEM
	issuers      []IssuerConfig
}

func (m *maker) write(name string, mode os.FileMode, data []byte) error {
	f, err := os.OpenFile(filepath.Join(m.Dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("writing %s: %w (an installation is never overwritten)", name, err)
	}
	if _, err := f.Write(data); err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", name, err), f.Close())
	}
	if err := f.Sync(); err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", name, err), f.Close())
	}
	return f.Close()
}

func (m *maker) writeKey(name string, key any, passphrase string) error {
	text, err := encryptKey(m.Rand, key, []byte(passphrase))
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return m.write(name, 0o400, text)
}

func (m *maker) passphrases() error {
	var err error
	if m.passphrase, err = cert.NewPassword(m.Rand); err != nil {
		return err
	}
	if err := m.write("secrets/keyroom.passphrase", 0o400, []byte(m.passphrase+"\n")); err != nil {
		return err
	}
	return m.write("offline/README", 0o600, []byte(offlineNote))
}

const offlineNote = `This folder does not belong on this machine.

root.key      the key of the root CA, to renew its CRL and to make issuing CAs
recovery.key  the key that authorises a new log if the old one is lost
root.pem      the certificate of the root CA, which is public
root.crl.pem  its last CRL, which is public; "chancery root-crl sign" replaces it with the next one

Both keys are encrypted (PKCS#8, scrypt, AES-256) under the passphrase that was given to "chancery init", or
that it printed once. Move the folder to two offline media, keep the passphrase elsewhere, and delete it
here. The service needs none of it.
`

func (m *maker) logKeys() error {
	_, logKey, err := ed25519.GenerateKey(m.Rand)
	if err != nil {
		return fmt.Errorf("making the log key: %w", err)
	}
	if err := m.writeKey("keyroom/log.key", logKey, m.passphrase); err != nil {
		return err
	}
	_, vkey, err := logSigner(m.origin, logKey)
	if err != nil {
		return err
	}
	if err := m.write("trust/log.pub", 0o444, []byte(vkey+"\n")); err != nil {
		return err
	}
	_, recovery, err := ed25519.GenerateKey(m.Rand)
	if err != nil {
		return fmt.Errorf("making the recovery key: %w", err)
	}
	if err := m.writeKey("offline/recovery.key", recovery, m.OfflinePassphrase); err != nil {
		return err
	}
	_, m.recoveryKey, err = logSigner(m.origin+"/recovery", recovery)
	return err
}

// rootAuthority makes the root and its CRL, number 1.
func (m *maker) rootAuthority() error {
	var err error
	if m.rootKey, err = cert.GenerateKey(m.Rand, cert.P384); err != nil {
		return fmt.Errorf("making the root key: %w", err)
	}
	der, err := profile.Root(m.Rand, m.rootKey, profile.RootSpec{Org: m.Org, Generation: 1}, m.Now())
	if err != nil {
		return err
	}
	if m.root, err = x509.ParseCertificate(der); err != nil {
		return fmt.Errorf("reading the root certificate back: %w", err)
	}
	now := m.Now().UTC().Truncate(time.Second)
	crl, err := list.Sign(m.Rand, list.Template{
		Issuer: m.root, Number: big.NewInt(1), ThisUpdate: now, NextUpdate: now.AddDate(0, 0, rootListDays),
	}, nil, m.rootKey)
	if err != nil {
		return fmt.Errorf("signing the root's CRL: %w", err)
	}
	if err := m.writeKey("offline/"+rootKeyFile, m.rootKey, m.OfflinePassphrase); err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for _, dir := range []string{"trust/", "keyroom/", "offline/"} {
		if err := m.write(dir+rootFile, 0o444, text); err != nil {
			return err
		}
	}
	for _, dir := range []string{"keyroom/", "offline/"} {
		if err := m.write(dir+rootListFile, 0o444, list.EncodePEM(crl)); err != nil {
			return err
		}
	}
	return nil
}

func (m *maker) issuingAuthorities() error {
	for _, p := range cert.Purposes() {
		id := cert.Issuer(string(p) + "s")
		key, err := cert.GenerateKey(m.Rand, cert.P256)
		if err != nil {
			return fmt.Errorf("making the key of %s: %w", id, err)
		}
		domains := slices.Clone(m.Domains)
		if p == cert.Server && len(domains) > 0 {
			domains = append(domains, m.Hosts...)
		}
		der, err := profile.IssuerCert(m.Rand, m.root, m.rootKey, profile.IssuerSpec{
			Org: m.Org, Generation: 1, Purposes: []cert.Purpose{p}, Domains: domains, Networks: m.Networks,
		}, key.Public(), m.Now())
		if err != nil {
			return fmt.Errorf("making the issuing CA %s: %w", id, err)
		}
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		if err := m.write("keyroom/"+string(id)+".pem", 0o444, text); err != nil {
			return err
		}
		if err := m.writeKey("keyroom/"+string(id)+".key", key, m.passphrase); err != nil {
			return err
		}
		m.chain = append(m.chain, text...)
		m.issuers = append(m.issuers, IssuerConfig{
			ID: id, Purposes: []cert.Purpose{p}, Domains: domains,
			MaxValidityDays: int(profile.MaxValidity(p) / (24 * time.Hour)), MaxListDays: 8,
		})
	}
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.root.Raw})
	return m.write("trust/chain.pem", 0o444, append(m.chain, root...))
}

func (m *maker) firstRecord() error {
	return createJournal(filepath.Join(m.Dir, "keyroom", "journal"), m.room, m.origin,
		record{time: m.Now(), root: new(audit.Tree).Root()})
}

// syncFolders makes the names of the files as durable as what is in them.
func (m *maker) syncFolders() error {
	for _, dir := range []string{"keyroom", "offline", "secrets", "trust", "."} {
		if err := syncFolder(filepath.Join(m.Dir, dir)); err != nil {
			return err
		}
	}
	return nil
}

func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("syncing %s: %w", path, err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("syncing %s: %w", path, err)
	}
	return nil
}

// The room's rates are far above what accounts need and far below what a stolen daemon would want.
const (
	perHour = 20_000
	perDay  = 100_000
)

func (m *maker) config() error {
	text, err := json.MarshalIndent(Config{
		Room: m.room, Origin: m.origin, Socket: "keyroom/socket", State: "keyroom",
		PassphraseFile: "secrets/keyroom.passphrase", AllowedUIDs: []int{}, RecoveryKey: m.recoveryKey,
		Issuers: m.issuers, PerHour: perHour, PerDay: perDay,
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("writing keyroom.json: %w", err)
	}
	return m.write("keyroom.json", 0o600, append(text, '\n'))
}

// ParseDomains checks the domains of a ceremony: lower-case host names, without a leading dot.
func ParseDomains(list []string) ([]string, error) {
	for _, d := range list {
		if d == "" || d != strings.ToLower(d) || strings.Trim(d, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" || strings.HasPrefix(d, ".") || strings.HasSuffix(d, ".") {
			return nil, fmt.Errorf("domain %.60q: want a lower-case name such as example.org", d)
		}
	}
	return list, nil
}
