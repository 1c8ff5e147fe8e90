package keyroom

import (
	"bytes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/chancery-ca/chancery/crashpoint"
)

// deliveryFile is the one file with the delivery keys: a head, a salt, a nonce, and the keys under
// AES-256-GCM, whose key is derived once, when the room opens. It is replaced as a whole, and what it held
// before is overwritten: on most file systems, that is where it was.
type deliveryFile struct {
	folder string
	stray  string // where the file was if the configuration was another one; "" if that is the folder
	rand   io.Reader
	bound  []byte // head, room and salt
	salt   []byte
	aead   cipher.AEAD
}

const (
	deliveryName = "delivery.keys"
	deliveryHead = "chancery delivery keys 1\n"
	saltSize     = 16
)

func (f *deliveryFile) path() string { return filepath.Join(f.folder, deliveryName) }

// loadDelivery takes up the delivery keys. They are not worth a room that does not serve: without the file,
// or with one that cannot be used, there will be new ones.
func (r *Room) loadDelivery(passphrase []byte) error {
	f := &deliveryFile{folder: r.config.DeliveryFolder, rand: r.rand}
	if f.folder != r.config.State {
		f.stray = r.path(deliveryName)
	}
	r.delivery = &delivery{
		file: f, window: time.Duration(r.config.deliveryHours()) * time.Hour, rand: r.rand, log: r.log, seen: r.now(),
		wrong: make(map[string]time.Time),
	}
	plain, err := f.read(passphrase, r.config.Room)
	if err == nil {
		defer clear(plain)
		r.delivery.seen, r.delivery.keys, err = decodeDelivery(plain)
	}
	if err == nil {
		return nil
	}
	r.delivery.seen, r.delivery.keys = r.now(), nil
	if !errors.Is(err, fs.ErrNotExist) {
		r.delivery.fails(deliveryLost, "the delivery keys cannot be used and are made anew: retries of earlier issues get no secrets", err)
	}
	salt := make([]byte, saltSize)
	if _, err := io.ReadFull(r.rand, salt); err != nil {
		return fmt.Errorf("drawing a salt: %w", err)
	}
	return f.derive(passphrase, r.config.Room, salt)
}

// derive makes the cipher of the file.
func (f *deliveryFile) derive(passphrase []byte, room string, salt []byte) error {
	block, err := passphraseCipher(passphrase, scryptParams{Salt: salt, N: scryptN, R: scryptR, P: scryptP})
	if err != nil {
		return err
	}
	f.salt, f.bound = salt, append([]byte(deliveryHead+room+"\n"), salt...)
	f.aead, err = cipher.NewGCM(block)
	return err
}

func (f *deliveryFile) read(passphrase []byte, room string) ([]byte, error) {
	text, err := readSecret(f.path())
	if err != nil {
		return nil, fmt.Errorf("reading the delivery keys: %w", err)
	}
	rest, ok := bytes.CutPrefix(text, []byte(deliveryHead))
	if !ok || len(rest) < saltSize+gcmNonce {
		return nil, fmt.Errorf("%s is not a file of delivery keys", f.path())
	}
	if err := f.derive(passphrase, room, bytes.Clone(rest[:saltSize])); err != nil {
		return nil, err
	}
	plain, err := f.aead.Open(nil, rest[saltSize:saltSize+gcmNonce], rest[saltSize+gcmNonce:], f.bound)
	if err != nil {
		return nil, fmt.Errorf("%s: wrong passphrase, or the file is damaged", f.path())
	}
	return plain, nil
}

const gcmNonce = 12 // octets, the standard size (NIST SP 800-38D section 8.2)

// write makes plain the content of the file, durably, and overwrites what it held. Without a key in it,
// there is no file.
func (f *deliveryFile) write(plain []byte) error {
	if _, keys, err := decodeDelivery(plain); err == nil && len(keys) == 0 {
		return f.discard()
	}
	if err := os.Mkdir(f.folder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("making the folder of the delivery keys: %w", err)
	}
	nonce := make([]byte, gcmNonce)
	if _, err := io.ReadFull(f.rand, nonce); err != nil {
		return fmt.Errorf("drawing a nonce: %w", err)
	}
	text := append(append([]byte(deliveryHead), f.salt...), nonce...)
	draft := f.path() + ".new"
	if err := overwrite(draft); err != nil {
		return err
	}
	if err := writeDraft(draft, f.aead.Seal(text, nonce, plain, f.bound)); err != nil {
		return errors.Join(err, overwrite(draft))
	}
	before, unopened := os.OpenFile(f.path(), os.O_WRONLY, 0)
	if unopened == nil {
		defer before.Close()
	}
	crashpoint.Before("delivery.write")
	if err := os.Rename(draft, f.path()); err != nil {
		return fmt.Errorf("naming the delivery keys: %w", err)
	}
	if err := syncFolder(f.folder); err != nil {
		return err
	}
	crashpoint.After("delivery.write")
	switch {
	case errors.Is(unopened, fs.ErrNotExist):
		return nil
	case unopened != nil:
		return fmt.Errorf("overwriting earlier delivery keys: %w", unopened)
	}
	return blank(before)
}

func writeDraft(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("writing the delivery keys: %w", err)
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing the delivery keys: %w", err)
	}
	return nil
}

// discard takes the file away.
func (f *deliveryFile) discard() error {
	if err := overwrite(f.path()); err != nil {
		return err
	}
	if err := syncFolder(f.folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// clean takes away what a killed room, and one with another configuration, left behind.
func (f *deliveryFile) clean() error {
	left := []string{f.path() + ".new"}
	if f.stray != "" {
		left = append(left, f.stray, f.stray+".new")
	}
	var err error
	for _, path := range left {
		err = errors.Join(err, overwrite(path))
	}
	return err
}

// overwrite blanks a file of keys and removes it. That there is none is no error.
func overwrite(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("destroying delivery keys: %w", err)
	}
	if err := errors.Join(blank(f), f.Close(), os.Remove(path)); err != nil {
		return fmt.Errorf("destroying delivery keys: %w", err)
	}
	return nil
}

// blank writes zeros over a file, in place.
func blank(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(make([]byte, info.Size()), 0); err != nil {
		return err
	}
	return f.Sync()
}
