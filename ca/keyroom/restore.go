package keyroom

import (
	"crypto/ecdh"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// Restore makes a key room that came out of a backup fit to serve: it opens every key and reads the
// whole journal, and then makes a new delivery key in the place of the one that no backup holds. Secrets
// that were sealed to the old one stay closed. A room that has a delivery key is refused.
func Restore(o Options) error {
	r := newRoom(o)
	if _, err := os.Lstat(r.path("delivery.key")); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is there, so this key room needs no new one: only one that came out of a backup does", r.path("delivery.key"))
	}
	passphrase, err := readPassphrase(o.Config.PassphraseFile)
	if err != nil {
		return err
	}
	defer clear(passphrase)
	if err := r.loadKeys(passphrase); err != nil {
		return err
	}
	if err := r.follow(r.path("journal")); err != nil {
		return err
	}
	return errors.Join(r.newDeliveryKey(string(passphrase)), r.Close())
}

// newDeliveryKey writes a delivery key that belongs to whom the log key belongs to. It appears under its
// name when it is whole.
func (r *Room) newDeliveryKey(passphrase string) error {
	key, err := ecdh.X25519().GenerateKey(r.rand)
	if err != nil {
		return fmt.Errorf("making the delivery key: %w", err)
	}
	const draft = "delivery.key.new"
	if err := os.Remove(r.path(draft)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("making the delivery key: %w", err)
	}
	m := &maker{Ceremony: Ceremony{Dir: r.config.State, Rand: r.rand}}
	if err := m.writeKey(draft, key, passphrase); err != nil {
		return err
	}
	info, err := os.Stat(r.path("log.key"))
	if err != nil {
		return fmt.Errorf("making the delivery key: %w", err)
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok {
		if err := os.Chown(r.path(draft), int(owner.Uid), int(owner.Gid)); err != nil {
			return fmt.Errorf("giving the delivery key to the owner of the log key: %w", err)
		}
	}
	if err := os.Rename(r.path(draft), r.path("delivery.key")); err != nil {
		return fmt.Errorf("naming the delivery key: %w", err)
	}
	return syncFolder(r.config.State)
}
