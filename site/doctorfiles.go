package site

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// account is a user as the kernel judges it by modes and owners. Access control lists are not looked at.
type account struct {
	uid    uint32
	groups []uint32
}

// owner gives the user that owns the first of some files that is there.
func owner(paths ...string) (account, bool) {
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		stat := info.Sys().(*syscall.Stat_t)
		a := account{uid: stat.Uid, groups: []uint32{stat.Gid}} // of a user without a name that is all one knows
		if u, err := user.LookupId(strconv.FormatUint(uint64(a.uid), 10)); err == nil {
			ids, _ := u.GroupIds() // those that the file has, at least
			a.groups = nil
			for _, id := range ids {
				if n, err := strconv.ParseUint(id, 10, 32); err == nil {
					a.groups = append(a.groups, uint32(n))
				}
			}
		}
		return a, true
	}
	return account{}, false
}

// may tells whether the user can read (4), write (2) or enter (1) something.
func (a account) may(info fs.FileInfo, what fs.FileMode) bool {
	stat, mode := info.Sys().(*syscall.Stat_t), info.Mode().Perm()
	switch {
	case a.uid == 0:
		return true
	case a.uid == stat.Uid:
		return mode&(what<<6) != 0
	case slices.Contains(a.groups, stat.Gid):
		return mode&(what<<3) != 0
	}
	return mode&what != 0
}

// reaches tells whether the user can do that to a path, through every folder above it.
func (a account) reaches(path string, what fs.FileMode) (bool, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false, err
	}
	info, err := os.Stat(real)
	if err != nil {
		return false, err
	}
	for above := filepath.Dir(real); ; above = filepath.Dir(above) {
		folder, err := os.Stat(above)
		if err != nil {
			return false, err
		}
		if !a.may(folder, 1) {
			return false, nil
		}
		if above == "/" {
			return a.may(info, what), nil
		}
	}
}

// daemonUser is who owns the store; roomUser is who made the key room's journal, or has its folder.
func (e *examination) daemonUser() (account, bool) { return owner(e.config.StorePath()) }

func (e *examination) roomUser() (account, bool) {
	return owner(filepath.Join(e.roomFiles.State, "journal"), e.roomFiles.Socket, e.roomFiles.State)
}

// checkSeparation looks how far the daemon's user is kept from the CA keys.
func (e *examination) checkSeparation(context.Context) ([]Finding, error) {
	var found []Finding
	daemon, daemonKnown := e.daemonUser()
	room, roomKnown := e.roomUser()
	switch {
	case !daemonKnown || !roomKnown: // what is missing is told by others
	case daemon.uid == room.uid:
		found = append(found, e.find("split.user", fmt.Sprintf("uid %d", daemon.uid), "it owns %s and %s", e.config.StorePath(), e.roomFiles.State))
	default:
		some, err := e.wall(daemon)
		if found = some; err != nil {
			return found, err
		}
	}
	var secret, keys syscall.Stat_t
	if syscall.Stat(e.roomFiles.PassphraseFile, &secret) == nil && syscall.Stat(e.roomFiles.State, &keys) == nil && secret.Dev == keys.Dev {
		found = append(found, e.find("split.disk", e.roomFiles.PassphraseFile, "the keys are in %s", e.roomFiles.State))
	}
	return found, nil
}

// wall looks what the daemon's user can do to the key room's files.
func (e *examination) wall(daemon account) ([]Finding, error) {
	var found []Finding
	for _, w := range []struct {
		code, path, verb string
		what             fs.FileMode
	}{
		{"split.passphrase", e.roomFiles.PassphraseFile, "read", 4},
		{"split.keys", e.roomFiles.State, "list", 4},
		{"split.keys", e.roomFiles.State, "write to", 2},
	} {
		can, err := daemon.reaches(w.path, w.what)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return found, err
		}
		if can {
			found = append(found, e.find(w.code, w.path, "uid %d can %s it", daemon.uid, w.verb))
		}
	}
	return found, nil
}

// maxKeyFile is above the size of any key file.
const maxKeyFile = 64 << 10

// checkOffline looks for the keys that belong elsewhere: by the names that init gives them, and, since an
// encrypted key does not tell whose it is, by the root's public key where one is in clear.
func (e *examination) checkOffline(ctx context.Context) ([]Finding, error) {
	var found []Finding
	folders := make(map[string]bool)
	roots, err := readCertificates(e.config.trusted("root.pem"))
	if err != nil {
		roots = nil // of which checkKeys tells
	}
	err = e.walk(ctx, func(path string, info fs.FileInfo) error {
		switch {
		case info.IsDir() && (path == e.config.Git.Repository || path == e.config.State):
			return filepath.SkipDir
		case !info.Mode().IsRegular():
			return nil
		}
		if name := info.Name(); name == "root.key" || name == "recovery.key" {
			folders[filepath.Dir(path)] = true
		}
		if len(roots) == 0 || info.Size() > maxKeyFile {
			return nil
		}
		text, err := os.ReadFile(path)
		if err == nil && holdsKeyOf(text, roots[0]) {
			found = append(found, e.find("offline.clear", path, "it is the private key of %s", e.config.trusted("root.pem")))
		}
		return err
	})
	for folder := range folders {
		found = append(found, e.find("offline.here", folder, "root.key or recovery.key is in it"))
	}
	return found, err
}

// places are the installation's folders and files: below one folder, or apart, as a package puts them. The
// first caller's key and the offline keys are made beside the state.
func (e *examination) places() []string {
	beside := filepath.Dir(e.config.State)
	all := []string{
		e.dir, e.config.State, e.config.Secrets, e.config.Trust, e.roomFiles.State, e.roomFiles.PassphraseFile,
		filepath.Join(beside, "callers"), filepath.Join(beside, "offline"), e.config.Git.Repository,
	}
	if path, ok := e.config.Directory.file(); ok {
		all = append(all, path, path+".lock")
	}
	var tops []string
	for _, path := range all {
		if path != "" && !slices.ContainsFunc(tops, func(top string) bool { return isBelow(path, top) }) {
			tops = append(tops, path)
		}
	}
	return tops
}

func isBelow(path, top string) bool { return path == top || strings.HasPrefix(path, top+"/") }

// walk goes through the installation. What goes away meanwhile is passed over, and so is what this user
// may not read, which the error tells in the end.
func (e *examination) walk(ctx context.Context, visit func(path string, info fs.FileInfo) error) error {
	var all error
	for _, place := range e.places() {
		all = errors.Join(all, walkBelow(ctx, place, visit))
	}
	return all
}

func walkBelow(ctx context.Context, place string, visit func(path string, info fs.FileInfo) error) error {
	var denied error
	err := filepath.WalkDir(place, func(path string, entry fs.DirEntry, err error) error {
		var info fs.FileInfo
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			info, err = entry.Info()
		}
		if err == nil {
			err = visit(path, info)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case errors.Is(err, fs.ErrPermission):
			if denied == nil {
				denied = err
			}
			return nil
		}
		return err
	})
	return errors.Join(err, denied)
}

// holdsKeyOf tells whether a text holds the private key of a certificate in clear.
func holdsKeyOf(text []byte, c *x509.Certificate) bool {
	if !bytes.Contains(text, []byte("PRIVATE KEY-----")) {
		return false
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if key, ok := parseKey(block.Bytes); ok {
			if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); ok && public.Equal(c.PublicKey) {
				return true
			}
		}
	}
	return false
}

// parseKey reads a private key in any of the forms that keys have in clear.
func parseKey(der []byte) (crypto.Signer, bool) {
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		signer, ok := key.(crypto.Signer)
		return signer, ok
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, true
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, true
	}
	return nil, false
}

// checkModes looks at who can read secrets and write anything, and whether the daemon can read what it
// needs.
func (e *examination) checkModes(ctx context.Context) ([]Finding, error) {
	trusted := []uint32{0, uint32(os.Geteuid())}
	daemon, daemonKnown := e.daemonUser()
	if daemonKnown {
		trusted = append(trusted, daemon.uid)
	}
	if room, ok := e.roomUser(); ok {
		trusted = append(trusted, room.uid)
	}
	var found []Finding
	err := e.walk(ctx, func(path string, info fs.FileInfo) error {
		found = append(found, e.judgeMode(path, info)...)
		if uid := info.Sys().(*syscall.Stat_t).Uid; !slices.Contains(trusted, uid) {
			found = append(found, e.find("mode.owner", path, "it belongs to uid %d", uid))
		}
		if info.IsDir() && path == e.config.Git.Repository {
			return filepath.SkipDir // who pushes to it owns what is in it
		}
		return nil
	})
	if !daemonKnown {
		return found, err
	}
	for _, path := range e.config.namedFiles() {
		if can, failed := daemon.reaches(path, 4); failed != nil {
			if some, failed := e.unusableFile("mode.unreadable", path, failed); failed == nil {
				found = append(found, some...)
			} else {
				err = errors.Join(err, failed)
			}
		} else if !can {
			found = append(found, e.find("mode.unreadable", path, "uid %d cannot", daemon.uid))
		}
		walked := slices.ContainsFunc(e.places(), func(place string) bool { return isBelow(path, place) })
		if info, failed := os.Stat(path); failed == nil && !walked {
			found = append(found, e.judgeMode(path, info)...)
		}
	}
	return found, err
}

// isSecret goes by where a file is, by its name, and by what the configuration says of it.
func (e *examination) isSecret(path string) bool {
	named := []string{e.config.renewed(), e.roomFiles.PassphraseFile, e.config.Git.PasswordFile, e.config.Git.ClientKey, e.config.Git.SSHKey}
	if d := e.config.Directory; d != nil {
		named = append(named, d.PasswordFile, d.ClientKey)
	}
	return filepath.Dir(path) == e.config.Secrets || strings.HasSuffix(path, ".key") || slices.Contains(named, path)
}

// judgeMode says the worst of a file's mode.
func (e *examination) judgeMode(path string, info fs.FileInfo) []Finding {
	code := ""
	switch mode := info.Mode(); {
	case mode&fs.ModeSymlink != 0:
		if e.isSecret(path) {
			return []Finding{e.find("mode.link", path, "it points somewhere else")}
		}
	case mode.Perm()&0o002 != 0 && mode&fs.ModeSticky == 0:
		code = "mode.writable"
	case mode.IsRegular() && mode.Perm()&0o004 != 0 && e.isSecret(path):
		code = "mode.secret"
	case mode.IsDir() && mode.Perm()&0o007 != 0 && slices.Contains([]string{e.config.Secrets, e.config.State, e.roomFiles.State}, path):
		code = "mode.folder"
	}
	if code == "" {
		return nil
	}
	return []Finding{e.find(code, path, "its mode is %04o", info.Mode().Perm())}
}
