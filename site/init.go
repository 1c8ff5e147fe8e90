package site

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.uber.org/zap"
	"golang.org/x/crypto/ssh"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/ca/profile"
	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/crl/gitrepo"
	"github.com/chancery-ca/chancery/crl/list"
	"github.com/chancery-ca/chancery/ldapsync"
	"github.com/chancery-ca/chancery/store"
)

// The service's own files in the folder of secrets.
const (
	serverCertFile = "server.pem"
	serverKeyFile  = "server.key"
	gitKeyFile     = "git_signing.key"
)

const (
	gitBranch   = "main"
	gitFolder   = "pki"
	firstCaller = "provisioning"
)

// Init is the making of an installation.
type Init struct {
	Dir    string
	Listen string // HOST:PORT
	Org    string
	Domain string // constrains the names of certificates; empty: any name
	// Passphrase is an open file with the passphrase of the offline keys; nil: one is made and printed
	// to Out.
	Passphrase *os.File
	Bin        string // folder with chancery-keyroom
	Out        io.Writer
	Log        *zap.Logger
}

// Run makes everything in a new folder beside Dir and then gives it its name, so that Dir is a whole
// installation or not there. What exists is never touched.
func (i Init) Run(ctx context.Context) error {
	dir, err := filepath.Abs(i.Dir)
	if err != nil {
		return err
	}
	host, err := i.check()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %s exists; an installation is never overwritten: choose another folder", ErrConfig, i.Dir)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("making the folder: %w", err)
	}
	draft, err := os.MkdirTemp(filepath.Dir(dir), ".chancery-init-")
	if err != nil {
		return fmt.Errorf("making the folder: %w", err)
	}
	defer os.RemoveAll(draft)
	if err := i.fill(ctx, draft, host); err != nil {
		return err
	}
	if err := os.Rename(draft, dir); err != nil {
		return fmt.Errorf("naming the installation: %w", err)
	}
	return nil
}

// maxOrg is how many characters the name of an organisation may have: it begins the common name of each CA,
// which has up to 64 (RFC 5280 appendix A.1), and " Callers CA G999" has to fit behind it.
const maxOrg = 48

// check refuses what no installation can be made of, before anything is made.
func (i Init) check() (ownNames, error) {
	switch n := utf8.RuneCountInString(i.Org); {
	case !utf8.ValidString(i.Org):
		return ownNames{}, errors.New("--org: it is not UTF-8")
	case strings.TrimSpace(i.Org) == "":
		return ownNames{}, errors.New("--org: it is empty")
	case n > maxOrg:
		return ownNames{}, fmt.Errorf("--org: it has %d characters; at most %d, because the names of the CAs begin with it", n, maxOrg)
	case strings.ContainsFunc(i.Org, func(r rune) bool { return !unicode.IsPrint(r) }):
		return ownNames{}, fmt.Errorf("--org: %q has a character that cannot be printed", i.Org)
	}
	if i.Domain != "" {
		if n, err := name.Canonical(cert.Server, i.Domain); err != nil {
			return ownNames{}, fmt.Errorf("--domain: %w", err)
		} else if n.Text != i.Domain {
			return ownNames{}, fmt.Errorf("--domain: want %q as %q", i.Domain, n.Text)
		}
	}
	own, err := i.ownNames()
	if err != nil {
		return own, fmt.Errorf("--listen: %w", err)
	}
	return own, nil
}

func (i Init) fill(ctx context.Context, dir string, host ownNames) error {
	if err := i.makeKeys(ctx, dir, host); err != nil {
		return err
	}
	for _, sub := range []string{"state", "callers"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			return fmt.Errorf("making the folder: %w", err)
		}
	}
	if err := writeNew(filepath.Join(dir, ConfigName), 0o600, i.configText(places{
		"keyroom/socket", "state", "secrets", "trust", directoryFile, repositoryFolder,
	})); err != nil {
		return err
	}
	config, err := LoadConfig(filepath.Join(dir, ConfigName))
	if err != nil {
		return err
	}
	if err := ldapsync.WriteEmpty(filepath.Join(dir, directoryFile), i.base()); err != nil {
		return err
	}
	if err := gitrepo.InitBare(config.Git.Repository, config.Git.Branch); err != nil {
		return err
	}
	room, err := startKeyRoom(i.Bin, dir, io.Discard)
	if err != nil {
		return err
	}
	if err = room.awaitHello(ctx, dir); err == nil {
		err = i.firstIssues(ctx, config, host)
	}
	return errors.Join(err, room.stop())
}

// ownNames is what the service's own certificate says.
type ownNames struct {
	host string
	ip   []string
}

func (i Init) ownNames() (ownNames, error) {
	host, err := splitListen(i.Listen)
	if err != nil {
		return ownNames{}, err
	}
	addr, err := netip.ParseAddr(host)
	switch {
	case err != nil && host != "":
		n, err := name.Canonical(cert.Server, host)
		if err != nil {
			return ownNames{}, err
		}
		return ownNames{host: n.Text}, nil
	case host == "" || addr.IsUnspecified():
		return ownNames{"localhost", []string{"127.0.0.1"}}, nil
	}
	return ownNames{"localhost", []string{addr.String()}}, nil
}

// makeKeys has the other binary make everything with keys.
func (i Init) makeKeys(ctx context.Context, dir string, own ownNames) error {
	args := []string{"init", "--dir", dir, "--org", i.Org}
	if i.Domain != "" {
		args = append(args, "--domain", i.Domain, "--network", "127.0.0.0/8", "--network", "::1/128")
		if !name.InDomain(own.host, i.Domain) {
			args = append(args, "--host", own.host)
		}
		for _, ip := range own.ip {
			if addr := netip.MustParseAddr(ip); !addr.IsLoopback() {
				args = append(args, "--network", netip.PrefixFrom(addr, addr.BitLen()).String())
			}
		}
	}
	if err := runKeyRoom(ctx, i.Bin, i.Passphrase, i.Out, args...); err != nil {
		return fmt.Errorf("making the keys: %w", err)
	}
	return nil
}

// runKeyRoom runs one of the commands of the key room's program to its end. A passphrase is for its
// --passphrase-fd.
func runKeyRoom(ctx context.Context, bin string, passphrase *os.File, out io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "chancery-keyroom"), args...)
	if passphrase != nil {
		cmd.ExtraFiles = []*os.File{passphrase}
		cmd.Args = append(cmd.Args, "--passphrase-fd", "3")
	}
	var failure strings.Builder
	cmd.Stdout, cmd.Stderr = out, &failure
	err := cmd.Run()
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%w\n%s", err, strings.TrimSpace(failure.String()))
	if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == 2 { // what it was given cannot be
		err = fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return err
}

const (
	directoryFile    = "directory.ldif"
	repositoryFolder = "config.git"
)

// places are the paths in chancery.yaml.
type places struct{ keyroom, state, secrets, trust, directory, repository string }

func (i Init) base() string {
	if i.Domain == "" {
		return "o=" + strings.NewReplacer(",", " ", "+", " ", `"`, " ", `\`, " ", "<", " ", ">", " ", ";", " ", "=", " ", "#", " ").Replace(i.Org)
	}
	return "dc=" + strings.ReplaceAll(i.Domain, ".", ",dc=")
}

func (i Init) configText(at places) []byte {
	domains := ""
	if i.Domain != "" {
		domains = "\n        domains: [" + strconv.Quote(i.Domain) + "]"
	}
	return fmt.Appendf(nil, `# One Chancery installation. Paths are relative to this file.
listen: %q
keyroom: %s
state: %s
secrets: %s
trust: %s

# Where the certificates of users and servers are published.
directory:
  url: ldif:%s
  base: %q
  create: true

# The repository that configuration management pulls; only this folder of it is written.
git:
  repository: %s
  branch: %s
  folder: %s

# Who may use the RPC. A name belongs to one caller for ever.
callers:
  - name: %s
    grants:
      - methods: [ca.issue, ca.renew, ca.revoke, ca.hold, ca.release, ca.retire, ca.status, ca.find, ca.expiring, ca.chain]
        purposes: [user, server]
        names: ["*"]%s
      # Its own next certificate, and no other caller's.
      - methods: [ca.issue]
        purposes: [caller]
        names: [%s]
`, i.Listen, at.keyroom, at.state, at.secrets, at.trust, at.directory, i.base(), at.repository, gitBranch, gitFolder, firstCaller, domains, firstCaller)
}

// firstIssues opens the log and has the service's own certificate and the first caller's issued as
// every other one is.
func (i Init) firstIssues(ctx context.Context, config Config, own ownNames) error {
	room, err := signer.DialReader(ctx, config.KeyRoom)
	if err != nil {
		return err
	}
	hello := room.Hello()
	room.Close()
	events, err := ceremonyEvents(hello)
	if err != nil {
		return err
	}
	who := audit.Actor{Kind: audit.ByCeremony, Name: "init"}
	s, err := store.Create(ctx, config.StorePath(), time.Now, who, events)
	if err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	if err := writeGitKey(config, hello.Origin); err != nil {
		return err
	}
	p, err := open(ctx, config, i.Log)
	if err != nil {
		return err
	}
	err = i.issueOwn(ctx, p, who, own)
	if err == nil {
		_, err = p.lists.PayOnce(ctx)
	}
	if err == nil {
		_, err = p.directory.PayOnce(ctx)
	}
	return errors.Join(err, p.close())
}

// ceremonyEvents are the first leaves of a log: they name the keys that everything after hangs on.
func ceremonyEvents(hello signer.Hello) ([]audit.Event, error) {
	root, err := x509.ParseCertificate(hello.Root)
	if err != nil {
		return nil, fmt.Errorf("reading the root certificate: %w", err)
	}
	rootList, err := list.Parse(hello.RootCRL)
	if err != nil {
		return nil, fmt.Errorf("reading the root's CRL: %w", err)
	}
	events := []audit.Event{
		&audit.LogOpened{
			Origin: hello.Origin, LogKey: hello.LogKey, RecoveryKey: hello.RecoveryKey,
			Room: hello.Room,
		},
		&audit.RootNamed{Subject: root.Subject.String(), Certificate: hello.Root},
	}
	for _, issuer := range hello.Issuers {
		c, err := x509.ParseCertificate(issuer.Certificate)
		if err != nil {
			return nil, fmt.Errorf("reading the certificate of issuer %s: %w", issuer.ID, err)
		}
		events = append(events, &audit.IssuerNamed{
			Issuer: issuer.ID, Room: hello.Room, Subject: c.Subject.String(), Purposes: issuer.Purposes, Certificate: issuer.Certificate,
		})
	}
	return append(events, &audit.RootListNamed{
		Number: rootList.Number.String(), ThisUpdate: rootList.ThisUpdate, NextUpdate: rootList.NextUpdate, SHA256: cert.SHA256(hello.RootCRL),
	}), nil
}

// writeGitKey makes the key that signs commits, and says in trust/ whose it is.
func writeGitKey(config Config, origin string) error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("making the key that signs commits: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, "chancery commits")
	if err != nil {
		return fmt.Errorf("encoding the key that signs commits: %w", err)
	}
	if err := writeNew(config.secret(gitKeyFile), 0o400, pem.EncodeToMemory(block)); err != nil {
		return err
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return fmt.Errorf("encoding the key that signs commits: %w", err)
	}
	line := fmt.Sprintf("%s namespaces=\"git\" %s", authorEmail(origin), ssh.MarshalAuthorizedKey(key))
	return writeNew(config.trusted("allowed_signers"), 0o444, []byte(line))
}

func (i Init) issueOwn(ctx context.Context, p *parts, who audit.Actor, own ownNames) error {
	dir := filepath.Dir(p.config.Path)
	server := ownIssue{
		purpose: cert.Server, cn: own.host, sans: cert.SANs{IP: own.ip}, days: int(profile.MaxValidity(cert.Server) / (24 * time.Hour)),
		cert: p.config.secret(serverCertFile), certMode: 0o400, key: p.config.secret(serverKeyFile),
	}
	caller := ownIssue{
		purpose: cert.Caller, cn: firstCaller,
		cert: filepath.Join(dir, "callers", firstCaller+".pem"), certMode: 0o444, key: filepath.Join(dir, "callers", firstCaller+".key"),
	}
	for _, o := range []ownIssue{server, caller} {
		if err := o.run(ctx, p.authority, ca.Call{Who: who, Rule: "init", RequestID: "init-" + o.cn}); err != nil {
			return fmt.Errorf("issuing %s: %w", o.cn, err)
		}
	}
	return nil
}

// ownIssue is a certificate for the installation itself or for a caller of it. Without a CSR the key is made here,
// and never sealed.
type ownIssue struct {
	csr       []byte // DER
	purpose   cert.Purpose
	cn        string
	sans      cert.SANs
	days      int
	cert, key string // files
	certMode  os.FileMode
}

func (o ownIssue) run(ctx context.Context, authority *ca.Authority, call ca.Call) error {
	n, err := name.Canonical(o.purpose, o.cn)
	if err != nil {
		return err
	}
	sans, err := name.CanonicalSANs(o.purpose, n, o.sans)
	if err != nil {
		return err
	}
	csr, discard := o.csr, func() error { return nil }
	if csr == nil {
		if csr, err = o.newKey(n.Text); err != nil {
			return err
		}
		discard = func() error { return os.Remove(o.key) }
	}
	call.BodySHA256 = cert.SHA256(csr)
	issued, err := authority.Issue(ctx, call, ca.IssueRequest{Purpose: o.purpose, Name: n, SANs: sans, CSR: csr, ValidDays: o.days})
	if err != nil {
		return errors.Join(err, discard())
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issued.Certificate})
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issued.Chain[0]})...)
	return writeNew(o.cert, o.certMode, text)
}

// newKey makes the key in its file, and gives a CSR for it.
func (o ownIssue) newKey(cn string) (csr []byte, err error) {
	key, err := cert.GenerateKey(rand.Reader, cert.P256)
	if err != nil {
		return nil, fmt.Errorf("making the key: %w", err)
	}
	if csr, err = profile.MakeCSR(rand.Reader, key, cn); err != nil {
		return nil, err
	}
	return csr, writeKey(o.key, key)
}

func writeKey(path string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encoding a key: %w", err)
	}
	defer clear(der)
	return writeNew(path, 0o400, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// writeNew writes a file that does not exist yet, durably.
func writeNew(path string, mode os.FileMode, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("writing %s: %w", filepath.Base(path), err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", filepath.Base(path), err)
	}
	return nil
}
