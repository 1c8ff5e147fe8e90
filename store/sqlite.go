package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	_ "modernc.org/sqlite" // the engine

	"github.com/chancery-ca/chancery/audit"
)

const (
	// SQLite before 3.51.3 can lose a commit when the WAL is reset while another connection checkpoints.
	sqliteFloor = "3.51.3"
	readers     = 4
	// A WAL that grew behind a slow reader is cut back to this many octets.
	walLimit = 16 << 20
	// How long a lock of another process is waited for, and how long a reader when only secrets are to
	// be scrubbed: that can be done next time.
	busyWait  = 10 * time.Second
	scrubWait = 200 * time.Millisecond
)

// engine is an open SQLite database: the connection of the writer and a pool that can only read.
type engine struct {
	writerDB *sql.DB // at most one connection, which conn holds
	conn     *sql.Conn
	write    *statements
	readDB   *sql.DB
	read     *statements
}

// dsn names a database for the driver. SQLite opens what is there and creates nothing: the file is
// made by Create alone.
func dsn(path, mode string, pragmas ...string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("finding the database: %w", err)
	}
	query := url.Values{"mode": {mode}, "_pragma": pragmas}
	return (&url.URL{Scheme: "file", Path: abs, RawQuery: query.Encode()}).String(), nil
}

// openEngine opens the connections. The tables may not be there yet.
func openEngine(ctx context.Context, path string) (*engine, error) {
	busy := fmt.Sprintf("busy_timeout(%d)", busyWait.Milliseconds())
	writer, err := dsn(path, "rw", busy, "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)",
		"secure_delete(1)", "trusted_schema(0)", "cell_size_check(1)", "journal_size_limit("+strconv.Itoa(walLimit)+")")
	if err != nil {
		return nil, err
	}
	reader, err := dsn(path, "ro", busy, "query_only(1)", "trusted_schema(0)", "cell_size_check(1)")
	if err != nil {
		return nil, err
	}
	e := &engine{}
	if err := e.open(ctx, writer, reader); err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

// openReadEngine opens connections that only read. They may touch the WAL's index, as every reader
// does.
func openReadEngine(path string) (*engine, error) {
	reader, err := dsn(path, "rw", fmt.Sprintf("busy_timeout(%d)", busyWait.Milliseconds()), "query_only(1)", "trusted_schema(0)", "cell_size_check(1)")
	if err != nil {
		return nil, err
	}
	e := &engine{}
	return e, e.openReaders(reader)
}

func (e *engine) open(ctx context.Context, writer, reader string) error {
	var err error
	if e.writerDB, err = sql.Open("sqlite", writer); err != nil {
		return fmt.Errorf("opening the database: %w", err)
	}
	e.writerDB.SetMaxOpenConns(1)
	if e.conn, err = e.writerDB.Conn(ctx); err != nil {
		return fmt.Errorf("opening the database: %w", err)
	}
	if err := e.checkEngine(ctx); err != nil {
		return err
	}
	e.write = newStatements(e.conn.PrepareContext)
	return e.openReaders(reader)
}

func (e *engine) openReaders(reader string) error {
	var err error
	if e.readDB, err = sql.Open("sqlite", reader); err != nil {
		return fmt.Errorf("opening the database for reading: %w", err)
	}
	e.read = newStatements(e.readDB.PrepareContext)
	e.readDB.SetMaxOpenConns(readers)
	e.readDB.SetMaxIdleConns(readers)
	return nil
}

// checkEngine makes sure that commits are as durable as this package promises: a file system that
// cannot do WAL leaves the old journal mode in place without an error.
func (e *engine) checkEngine(ctx context.Context) error {
	var version, journal, synchronous, foreign string
	for text, value := range map[string]*string{
		"SELECT sqlite_version()": &version, "PRAGMA journal_mode": &journal,
		"PRAGMA synchronous": &synchronous, "PRAGMA foreign_keys": &foreign,
	} {
		if err := e.conn.QueryRowContext(ctx, text).Scan(value); err != nil {
			return fmt.Errorf("asking the engine (%s): %w", text, err)
		}
	}
	if !atLeast(version, sqliteFloor) {
		return fmt.Errorf("SQLite %s is linked; at least %s is needed", version, sqliteFloor)
	}
	if journal != "wal" || synchronous != "2" || foreign != "1" {
		return fmt.Errorf("journal_mode=%s synchronous=%s foreign_keys=%s; want wal, 2, 1: does the file system support WAL?",
			journal, synchronous, foreign)
	}
	return nil
}

// atLeast compares dotted version numbers.
func atLeast(version, floor string) bool {
	have, want := strings.Split(version, "."), strings.Split(floor, ".")
	for i := range want {
		if i >= len(have) {
			return false
		}
		h, errHave := strconv.Atoi(have[i])
		w, errWant := strconv.Atoi(want[i])
		if errHave != nil || errWant != nil {
			return false
		}
		if h != w {
			return h > w
		}
	}
	return true
}

// close rolls back what is not committed. The last connection to close copies the WAL into the
// database and removes it.
func (e *engine) close() error {
	var errs []error
	if e.readDB != nil {
		errs = append(errs, e.read.close(), e.readDB.Close())
	}
	if e.write != nil {
		errs = append(errs, e.write.close())
	}
	if e.conn != nil {
		errs = append(errs, e.conn.Close())
	}
	if e.writerDB != nil {
		errs = append(errs, e.writerDB.Close())
	}
	return errors.Join(errs...)
}

func (e *engine) do(text string) error {
	_, err := e.write.exec(context.Background(), text)
	return err
}

// begin takes the write lock at once: a transaction that starts by reading could not always get it
// later.
func (e *engine) begin() error    { return e.do("BEGIN IMMEDIATE") }
func (e *engine) commit() error   { return e.do("COMMIT") }
func (e *engine) rollback() error { return e.do("ROLLBACK") }

// truncateWAL copies the WAL into the database, syncs both and empties the WAL. It waits so long for
// those who are reading from it, and with it does every change.
func (e *engine) truncateWAL(wait time.Duration) error {
	if err := e.setBusyWait(wait); err != nil {
		return err
	}
	var busy, inLog, copied int
	err := e.conn.QueryRowContext(context.Background(), "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &inLog, &copied)
	if err == nil && busy != 0 {
		err = errors.New("another connection is reading from it")
	}
	if err = errors.Join(err, e.setBusyWait(busyWait)); err != nil {
		return fmt.Errorf("emptying the WAL: %w", err)
	}
	return nil
}

func (e *engine) setBusyWait(wait time.Duration) error {
	_, err := e.conn.ExecContext(context.Background(), "PRAGMA busy_timeout = "+strconv.FormatInt(wait.Milliseconds(), 10))
	return err
}

// insertLeaves appends leaves and the nodes that they complete, in one statement each.
func (e *engine) insertLeaves(tree *audit.Tree, leaves [][]byte) error {
	ctx := context.Background()
	position := tree.Size()
	firstNode := tlog.StoredHashIndex(0, position)
	text := "INSERT INTO leaf (position, leaf) VALUES " + strings.TrimSuffix(strings.Repeat("(?,?),", len(leaves)), ",")
	args := make([]any, 0, 2*len(leaves))
	var nodes []byte
	for i, leaf := range leaves {
		args = append(args, position+int64(i), leaf)
		for _, node := range tree.Append(leaf) {
			nodes = append(nodes, node[:]...)
		}
	}
	if _, err := e.write.exec(ctx, text, args...); err != nil {
		return fmt.Errorf("appending %d leaves at %d: %w", len(leaves), position, err)
	}
	// New nodes are contiguous by stored-hash index, so that one blob carries them all.
	const insertNodes = `WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < $3)
		INSERT INTO node (position, hash) SELECT $1 + i, substr($2, 32 * i + 1, 32) FROM n`
	if _, err := e.write.exec(ctx, insertNodes, firstNode, nodes, len(nodes)/tlog.HashSize); err != nil {
		return fmt.Errorf("appending %d nodes at %d: %w", len(nodes)/tlog.HashSize, firstNode, err)
	}
	return nil
}
