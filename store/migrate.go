package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"

	"github.com/chancery-ca/chancery/ca/cert"
)

//go:embed migrations
var migrationFiles embed.FS

// migration is one step of the schema. The digest is pinned here and in the database: a step that was
// changed after it ran somewhere would leave two installations with different tables.
type migration struct {
	file   string
	sha256 string
}

var sqliteMigrations = []migration{
	{"migrations/sqlite/0001_books.sql", "cb3d80dd865e16b688afaa6a151f07262f756e9e28de84a01bba8b5310b6c205"},
	{"migrations/sqlite/0002_release.sql", "157ba28317173a78a7b25627b1125ecd382c4b38be2c3117a0e2c0f6c69b1231"},
	{"migrations/sqlite/0003_expiry.sql", "c66bd050c15ac84f41d49ec1b06195b73655fff550eede191530f83ef229dc5b"},
	{"migrations/sqlite/0004_names.sql", "a21a2a769964a36ea6db611cdc78e24833477df9014dce4eae5cd4de6d27496b"},
}

// ErrSchema is in the chain of errors about a database that this build must not touch: a newer schema,
// a changed step, or no store at all.
var ErrSchema = errors.New("not a schema of this build")

const migrationTable = `CREATE TABLE migration (version INTEGER PRIMARY KEY, file TEXT NOT NULL, sha256 TEXT NOT NULL) STRICT`

// migrate brings the tables up to this build's schema, each step in its own transaction. A database
// without a migration table is accepted only when it is fresh.
func (e *engine) migrate(ctx context.Context, steps []migration, fresh bool) error {
	if fresh {
		if _, err := e.conn.ExecContext(ctx, migrationTable); err != nil {
			return fmt.Errorf("preparing a new database: %w", err)
		}
	}
	done, err := migrated(ctx, e.write, steps)
	if err != nil {
		return err
	}
	for version := done; version < len(steps); version++ {
		if err := e.step(ctx, version+1, steps[version]); err != nil {
			return fmt.Errorf("migrating the database to schema %d: %w", version+1, err)
		}
	}
	return nil
}

// migrated counts the steps that the database has had, and compares each with the pinned one.
func migrated(ctx context.Context, st *statements, steps []migration) (int, error) {
	tables, done := 0, 0
	err := st.rows(ctx, func(rows *sql.Rows) error { return rows.Scan(&tables) },
		"SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'migration'")
	if err != nil {
		return 0, fmt.Errorf("reading the schema: %w", err)
	}
	if tables == 0 {
		return 0, fmt.Errorf("%w: the database has no migration table, so it is not a store", ErrSchema)
	}
	err = st.rows(ctx, func(rows *sql.Rows) error {
		var version int
		var file, digest string
		if err := rows.Scan(&version, &file, &digest); err != nil {
			return err
		}
		done++
		if version > len(steps) {
			return fmt.Errorf("%w: the database has schema %d, this build knows %d: use the newer build", ErrSchema, version, len(steps))
		}
		if want := steps[version-1]; version != done || digest != want.sha256 {
			return fmt.Errorf("%w: step %d (%s) has SHA-256 %s in the database, %s in this build", ErrSchema, version, file, digest, want.sha256)
		}
		return nil
	}, "SELECT version, file, sha256 FROM migration ORDER BY version")
	if err != nil {
		return 0, fmt.Errorf("reading the schema: %w", err)
	}
	return done, nil
}

func (e *engine) step(ctx context.Context, version int, m migration) error {
	text, err := migrationFiles.ReadFile(m.file)
	if err != nil {
		return err
	}
	if digest := cert.SHA256(text); digest != m.sha256 {
		return fmt.Errorf("%w: %s has SHA-256 %s, pinned is %s", ErrSchema, m.file, digest, m.sha256)
	}
	tx, err := e.conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, string(text)); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO migration (version, file, sha256) VALUES ($1, $2, $3)", version, m.file, m.sha256); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}
