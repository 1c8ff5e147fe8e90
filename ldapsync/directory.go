// Package ldapsync makes the directory say what the store says.
//
// It is level-triggered: a debt names a place, a purpose and a name, and the loop reads the books when
// it pays. Replays, reordering and crashes therefore do no harm, and a sweep over all names is the
// same code. The certificates of other CAs, and every other attribute and entry, are never touched:
// only bytes that our books hold are added or removed.
//
// It imports store, audit, ca/cert and ca/name, and speaks LDAP with go-ldap.
package ldapsync

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
)

// What a directory can answer other than success. Every other error means that it is down: nothing is
// known, and trying again later may help.
var (
	// ErrNoEntry says that no entry has this name, or that the entry with this identifier is gone.
	ErrNoEntry = errors.New("the directory has no such entry")
	// ErrManyEntries says that a name or an identifier does not single out one entry.
	ErrManyEntries = errors.New("the directory has more than one such entry")
	// ErrRefused says that the directory understood the request and declined it.
	ErrRefused = errors.New("the directory refused")
)

// SettingError says which setting a directory cannot be opened with: urls[N], base, or base or filter of a
// purpose, as in user.base.
type SettingError struct {
	Setting string
	Err     error
}

func (e *SettingError) Error() string { return e.Err.Error() }

// Unwrap gives the error.
func (e *SettingError) Unwrap() error { return e.Err }

func badSetting(setting, format string, args ...any) error {
	return &SettingError{setting, fmt.Errorf(format, args...)}
}

// Target is one entry of the directory and the name it was matched by. Entry is its entryUUID
// (RFC 4530) in lower case: an entry that was deleted and made again is another entry.
type Target struct {
	Purpose cert.Purpose
	Name    name.Name
	Entry   string
}

// Directory is the world outside: a file of entries, or a server.
type Directory interface {
	// Find gives the identifier of the only entry that has the name. Where entries are made on
	// demand, it gives the identifier that a missing entry will have. It writes nothing.
	Find(ctx context.Context, purpose cert.Purpose, n name.Name) (entry string, err error)
	// Read gives the values of userCertificate;binary of the target, in DER and in their order.
	Read(ctx context.Context, t Target) (values [][]byte, err error)
	// Apply adds the values that the target lacks and removes those that it has, each by its exact
	// bytes. Adding what is there and removing what is not are successes.
	Apply(ctx context.Context, t Target, add, remove [][]byte) error
}

// madeEntry is the entryUUID of an entry that this package makes: the same for the same purpose and
// name, so that an intent can name an entry before it exists. RFC 9562 section 5.8 (version 8) leaves
// the content of such an identifier to whoever makes it.
func madeEntry(purpose cert.Purpose, n name.Name) string {
	sum := sha256.Sum256([]byte("directory entry\x00" + string(purpose) + "\x00" + n.Key))
	id := sum[:16]
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	h := hex.EncodeToString(id)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
