package keyroom

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/crl/list"
)

const (
	rootFile     = "root.pem"
	rootKeyFile  = "root.key"
	rootListFile = "root.crl.pem"
)

// maxRootListDays is the longest life of a CRL of the root, in days.
const maxRootListDays = 800

// RootList is the signing of the root's next CRL, on the machine where the root key is. It needs nothing
// else of the installation.
type RootList struct {
	// Offline is the folder that init made: root.key, root.pem, and root.crl.pem, which the new list
	// replaces.
	Offline    string
	Days       int // of its life; 0: 400
	Passphrase string
	Now        func() time.Time
	Rand       io.Reader
}

// Sign makes the list that follows the one in the folder, with its entries and the next number, and puts it
// into its place.
func (r RootList) Sign() (*list.List, error) {
	if r.Days == 0 {
		r.Days = rootListDays
	}
	if r.Days < 1 || r.Days > maxRootListDays {
		return nil, fmt.Errorf("%w: %d days; want 1 to %d", ErrConfig, r.Days, maxRootListDays)
	}
	root, last, err := readRootList(r.Offline)
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("%w; copy trust/root.pem of the installation, and pki/root.crl.pem of the repository with the lists, into %s", err, r.Offline)
	}
	if err != nil {
		return nil, err
	}
	private, err := readKey(filepath.Join(r.Offline, rootKeyFile), []byte(r.Passphrase))
	if err != nil {
		return nil, err
	}
	key, ok := private.(crypto.Signer)
	if !ok {
		return nil, errors.New("the root key cannot sign")
	}
	now := r.Now().UTC().Truncate(time.Second)
	t := list.Template{Issuer: root, Number: new(big.Int).Add(last.Number, big.NewInt(1)), ThisUpdate: now, NextUpdate: now.AddDate(0, 0, r.Days)}
	if t.NextUpdate.After(root.NotAfter) {
		return nil, fmt.Errorf("a list of %d days would outlive the root, which ends on %s: give fewer --days", r.Days, root.NotAfter.Format(time.DateOnly))
	}
	var entries []byte
	for _, e := range last.Entries {
		if entries, err = list.AppendEntry(entries, e); err != nil {
			return nil, fmt.Errorf("taking over the entry of %s: %w", e.Serial, err)
		}
	}
	der, err := list.Sign(r.Rand, t, entries, key)
	if err != nil {
		return nil, err
	}
	text := list.EncodePEM(der)
	next, err := judgeRootList(text, root, last, now)
	if err != nil {
		return nil, err
	}
	return next, replaceFile(filepath.Join(r.Offline, rootListFile), text)
}

// InstallRootList puts the CRL of the root in the PEM file at path into the place of the one that the key
// room of this configuration has, if it follows it. The room may run: it reads the file for each
// connection. The list that is there already is installed again without a word.
func InstallRootList(c Config, path string, now time.Time) (*list.List, error) {
	root, last, err := readRootList(c.State)
	if err != nil {
		return nil, err
	}
	text, err := readSmall(path)
	if err != nil {
		return nil, fmt.Errorf("reading the list: %w", err)
	}
	if bytes.Equal(text, list.EncodePEM(last.Raw)) {
		return last, nil
	}
	next, err := judgeRootList(text, root, last, now)
	if err != nil {
		return nil, fmt.Errorf("%s is not installed: %w", path, err)
	}
	return next, replaceFile(filepath.Join(c.State, rootListFile), text)
}

// maxRootList bounds a file with a CRL of the root, which has an entry for each revoked issuing CA.
const maxRootList = 1 << 20

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxRootList+1))
	if err == nil && len(text) > maxRootList {
		err = fmt.Errorf("%s has more than %d octets, so it is no list of the root", path, maxRootList)
	}
	return text, err
}

// readRootList reads the root and its last CRL in a folder.
func readRootList(folder string) (root *x509.Certificate, last *list.List, err error) {
	der, err := readPEM(filepath.Join(folder, rootFile), "CERTIFICATE")
	if err != nil {
		return nil, nil, err
	}
	if root, err = x509.ParseCertificate(der); err != nil {
		return nil, nil, fmt.Errorf("reading the root certificate: %w", err)
	}
	if der, err = readPEM(filepath.Join(folder, rootListFile), "X509 CRL"); err != nil {
		return nil, nil, err
	}
	last, err = genuineRootList(der, root)
	return root, last, err
}

func genuineRootList(der []byte, root *x509.Certificate) (*list.List, error) {
	l, err := list.Parse(der)
	if err == nil {
		err = l.Verify(root)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the root's CRL: %w", err)
	}
	return l, nil
}

// judgeRootList reads a list that is to replace last: signed by the root, in time, with a higher number, not
// older, and with every entry. Nothing tells the expiry of a CA here, so none leaves.
func judgeRootList(text []byte, root *x509.Certificate, last *list.List, now time.Time) (*list.List, error) {
	lists, err := list.ParseBundle(text)
	if err != nil {
		return nil, err
	}
	if len(lists) != 1 {
		return nil, fmt.Errorf("it holds %d lists; want the root's alone", len(lists))
	}
	next := lists[0]
	if err := next.Verify(root); err != nil {
		return nil, err
	}
	if err := next.Current(now); err != nil {
		return nil, err
	}
	unknown := func(cert.Serial) (time.Time, bool) { return time.Time{}, false }
	if err := list.Follows(next, last, unknown, func(list.Entry) bool { return false }); err != nil {
		return nil, fmt.Errorf("it does not follow list %s: %w; copy that list over the %s beside the root key, and sign again", last.Number, err, rootListFile)
	}
	if next.ThisUpdate.Before(last.ThisUpdate) {
		return nil, fmt.Errorf("it is of %s, before list %s of %s: look at the clock of the machine that signed it",
			next.ThisUpdate.Format(time.RFC3339), last.Number, last.ThisUpdate.Format(time.RFC3339))
	}
	return next, nil
}

// replaceFile writes a file durably and gives it its name in one step.
func replaceFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return fmt.Errorf("writing %s: %w", filepath.Base(path), err)
	}
	defer os.Remove(f.Name()) // fails once it has its name
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(0o444)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = syncFolder(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", filepath.Base(path), err)
	}
	return nil
}

// currentRootList gives the root's CRL as it is on the disk now. Something else in its place changes
// nothing: the room goes on with what it read before.
func (r *Room) currentRootList() []byte {
	der, err := r.loadRootList()
	if err != nil {
		r.log.Error("the root's CRL on the disk is not taken up", "code", "crl.root", "error", err.Error())
		return r.rootCRL
	}
	r.rootCRL = der
	return der
}

func (r *Room) loadRootList() ([]byte, error) {
	der, err := readPEM(r.path(rootListFile), "X509 CRL")
	if err != nil || bytes.Equal(der, r.rootCRL) {
		return der, err
	}
	root, err := x509.ParseCertificate(r.root)
	if err != nil {
		return nil, fmt.Errorf("reading the root certificate: %w", err)
	}
	_, err = genuineRootList(der, root)
	return der, err
}
