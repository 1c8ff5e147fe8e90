// Package credential says where a secret is that a configuration names: in a file, or with systemd, which
// puts what a unit's LoadCredential= and LoadCredentialEncrypted= name into a folder that only the service
// can read, and tells the folder in $CREDENTIALS_DIRECTORY (systemd.exec(5)).
//
// It imports the standard library, so that the key room can use it.
package credential

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Prefix is what the name of a credential follows.
const Prefix = "credential:"

const folder = "CREDENTIALS_DIRECTORY"

// Path gives the file of a secret. credential:NAME is NAME in $CREDENTIALS_DIRECTORY; anything else is a
// path, relative to base.
func Path(value, base string) (string, error) {
	name, ok := strings.CutPrefix(value, Prefix)
	switch {
	case !ok && filepath.IsAbs(value):
		return value, nil
	case !ok:
		return filepath.Join(base, value), nil
	case name == "" || name == "." || name == ".." || strings.ContainsRune(name, '/'):
		return "", fmt.Errorf("%q: want %sNAME, where NAME is a plain file name", value, Prefix)
	}
	dir := os.Getenv(folder)
	if dir == "" {
		return "", fmt.Errorf("%s: $%s is not set. systemd sets it for a unit with LoadCredential=%s:PATH; by hand, as root and "+
			"while the service runs, set it to /run/credentials/UNIT", value, folder, name)
	}
	if !filepath.IsAbs(dir) {
		return "", errors.New("$" + folder + " is not an absolute path")
	}
	return filepath.Join(dir, name), nil
}

// Named tells whether a value stands for a credential.
func Named(value string) bool { return strings.HasPrefix(value, Prefix) }

// Holds tells whether a path is that of a credential. Its mode says little: systemd may make the file
// readable for root's group, and let the service in with an access control list.
func Holds(path string) bool {
	dir := os.Getenv(folder)
	return filepath.IsAbs(dir) && filepath.Dir(path) == filepath.Clean(dir)
}
