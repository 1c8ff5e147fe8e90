package gitrepo

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/go-git/go-git/v5/plumbing"
)

// bareConfig refuses rewriting and deleting to everybody who pushes: the
// history is evidence.
const bareConfig = `[core]
	repositoryformatversion = 0
	filemode = true
	bare = true
[receive]
	denyNonFastForwards = true
	denyDeletes = true
`

// InitBare makes an empty bare repository whose HEAD is the branch. A path that
// exists is refused. The repository appears under its path whole, or not at all.
func InitBare(path, branch string) error {
	ref, err := branchRef(branch)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("making repository %s: %w", path, fs.ErrExist)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("making repository: %w", err)
	}
	path = filepath.Clean(path)
	draft := path + ".new-" + rand.Text()
	if err := fillBare(draft, ref); err != nil {
		os.RemoveAll(draft)
		return fmt.Errorf("making repository: %w", err)
	}
	if err := os.Rename(draft, path); err != nil {
		os.RemoveAll(draft)
		return fmt.Errorf("making repository: %w", err)
	}
	return syncDirs(filepath.Dir(path))
}

func fillBare(path string, ref plumbing.ReferenceName) error {
	dirs := []string{"", "objects", "objects/info", "objects/pack", "refs", "refs/heads", "refs/tags"}
	for i, dir := range dirs {
		dirs[i] = filepath.Join(path, dir)
		if err := os.Mkdir(dirs[i], 0o777); err != nil {
			return err
		}
	}
	for name, content := range map[string]string{"config": bareConfig, "HEAD": "ref: " + ref.String() + "\n"} {
		if err := writeSynced(filepath.Join(path, name), 0o666, []byte(content)); err != nil {
			return err
		}
	}
	return syncDirs(dirs...)
}

// writeSynced writes a new file; it must not exist. The mode is cut by the
// umask, as git's is.
func writeSynced(path string, mode fs.FileMode, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// syncDirs makes the names in the folders durable: a file that was synced can
// still lose its name.
func syncDirs(paths ...string) error {
	for _, path := range paths {
		d, err := os.Open(path)
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return fmt.Errorf("syncing %s: %w", path, err)
		}
	}
	return nil
}
