package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/chancery-ca/chancery/audit"
)

// Snapshot copies the database at path, of which another process may be the writer, as it is at one
// moment, to the new file at to, of mode 0600, and gives the head of the log in the copy. The copy holds no
// sealed secrets. It is durable when Snapshot returns; after an error what is at to, and beside it, is of no
// use.
func Snapshot(ctx context.Context, path, to string) (size int64, root audit.Hash, err error) {
	size, root, err = snapshot(ctx, path, to)
	if err != nil {
		return 0, audit.Hash{}, fmt.Errorf("copying the store %s: %w", path, err)
	}
	return size, root, nil
}

func snapshot(ctx context.Context, path, to string) (size int64, root audit.Hash, err error) {
	// SQLite fills an empty file, and would make one that others may read.
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, root, err
	}
	if err := f.Close(); err != nil {
		return 0, root, err
	}
	if err := vacuumInto(ctx, path, to); err != nil {
		return 0, root, err
	}
	s, err := Open(ctx, to, time.Now)
	if err != nil {
		return 0, root, err
	}
	_, err = s.DropSealed(ctx, time.Unix(1<<40, 0))
	size, root = s.Head()
	return size, root, errors.Join(err, s.Close(), syncDir(filepath.Dir(to)))
}

func vacuumInto(ctx context.Context, path, to string) error {
	if _, err := os.Stat(path); err != nil {
		return err
	}
	// The copy takes secure_delete over from here. Without it, pages that are split while it is written keep
	// octets of rows that went elsewhere, and DropSealed does not find them.
	name, err := dsn(path, "rw", fmt.Sprintf("busy_timeout(%d)", busyWait.Milliseconds()), "secure_delete(1)", "trusted_schema(0)", "cell_size_check(1)")
	if err != nil {
		return err
	}
	db, err := sql.Open("sqlite", name)
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	_, err = db.ExecContext(ctx, "VACUUM INTO ?", to)
	return errors.Join(err, db.Close())
}
