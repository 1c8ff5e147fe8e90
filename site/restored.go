package site

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/credential"
	"github.com/chancery-ca/chancery/crl"
)

// restoredFile is in the state of an installation that came out of a backup until its daemon has
// started: it must ask git first what the backup does not know.
const restoredFile = "restored.json"

// mark leaves the manifest in the state, for the user who owns the store.
func (u *unpacked) mark(name string, m Manifest) error {
	text, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	h := &tar.Header{Mode: 0o600, Uid: os.Geteuid(), Gid: os.Getegid()}
	if owner := u.folders[path.Dir(name)]; owner != nil {
		h.Uid, h.Gid, h.Uname, h.Gname = owner.Uid, owner.Gid, owner.Uname, owner.Gname
	}
	return u.file(name, h, bytes.NewReader(text))
}

func (c Config) restoredPath() string { return filepath.Join(c.State, restoredFile) }

// restored gives the manifest of the backup that the installation came out of, nil once it has started.
func (c Config) restored() (*Manifest, error) {
	text, err := os.ReadFile(c.restoredPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("reading which backup this is: %w", err)
	}
	m := new(Manifest)
	if err := json.Unmarshal(text, m); err != nil {
		return nil, fmt.Errorf("reading which backup this is, %s: %w", c.restoredPath(), err)
	}
	return m, nil
}

// noteStart says on the log that the service started and, the first time after a restore, out of which
// backup.
func (d Daemon) noteStart(ctx context.Context, p *parts, from *Manifest) error {
	e := &audit.ServiceStarted{Build: d.Build, ConfigSHA256: d.Config.SHA256, Room: p.signer.RoomState()}
	if from == nil {
		return d.note(ctx, p, e)
	}
	e.Restored = &audit.RestoredFrom{Made: from.Made, Size: from.Log.Size}
	if err := d.note(ctx, p, e); err != nil {
		return err
	}
	if err := os.Remove(d.Config.restoredPath()); err != nil {
		return fmt.Errorf("taking the note of the restore away: %w", err)
	}
	if p.directory != nil {
		d.sweep(ctx, p) // it is of another moment than the books
	}
	return nil
}

// explain says of a service that does not start after a restore what is lost, and what can be done.
func (m *Manifest) explain(err error) error {
	if errors.Is(err, crl.ErrRolledBack) {
		return fmt.Errorf("%w; this installation came out of a backup of %d leaves, made at %s, and what came after it is lost with the old machine: "+
			"look for a newer backup, or for the old key room's folder; docs/BACKUP.md says what remains if there is neither", err, m.Log.Size, m.Made.Format(time.RFC3339))
	}
	if errors.Is(err, crl.ErrNoWitness) {
		return fmt.Errorf("this installation came out of a backup, and only git knows what came after it: %w; put the newest clone in its place, any host that pulls it has one", err)
	}
	return fmt.Errorf("this installation came out of a backup, and git, which knows what the backup does not, cannot be asked: %w; mend that first", err)
}

// Step is one thing for the operator to do after a restore.
type Step struct {
	Do      string `json:"do"`
	Command string `json:"command,omitempty"` // for a shell
}

// Steps are what is to be done, in this order, with the installation that was restored into dir.
func Steps(dir string, m Manifest) ([]Step, error) {
	c, err := readOutline(filepath.Join(dir, ConfigName))
	if err != nil {
		return nil, err
	}
	roomConfig, room, err := loadRoomFiles(dir)
	if err != nil {
		return nil, err
	}
	steps := []Step{{Do: "make sure that the old key room never runs again: a CA key lives in exactly one"}}
	for _, p := range m.Elsewhere {
		steps = append(steps, Step{"put " + p.Name + " where the configuration has it, or change the configuration",
			"mkdir -p " + ShellWord(filepath.Dir(p.Path)) + " && mv -T " + ShellWord(filepath.Join(dir, p.Name)) + " " + ShellWord(p.Path)})
	}
	for _, path := range c.namedFiles() {
		if _, err := os.Stat(path); err != nil {
			steps = append(steps, Step{Do: "put back " + path + ", which chancery.yaml names and no backup holds"})
		}
	}
	if credential.Named(room.PassphraseFile) {
		steps = append(steps, Step{Do: "put back the passphrase of the key room, which no backup holds, as the " + room.PassphraseFile + " of its unit"})
	} else {
		steps = append(steps, Step{"put the passphrase of the key room, which no backup holds, into its file, for the user who owns " + filepath.Join(room.State, "log.key"),
			"install -m 0400 /dev/stdin " + ShellWord(room.PassphraseFile)})
	}
	if path, local := c.Git.local(); local {
		steps = append(steps, Step{"put the newest clone of the git repository back, as the daemon's user, from any host that pulls it; it is the witness of what came after the backup, and no backup holds it",
			"git clone --bare CLONE " + ShellWord(path)})
	}
	keyroom := "chancery-keyroom --config " + ShellWord(roomConfig)
	return append(steps,
		Step{"start the key room", keyroom + " &"},
		Step{"bring the store up to the key room", "chancery recover " + ShellWord(dir)},
		Step{"start the daemon; it asks git first whether the backup is the newest there is", "chanceryd --config " + ShellWord(c.Path) + " &"},
		Step{"compare everything with everything", "chancery fsck " + ShellWord(dir)},
	), nil
}

// ShellWord writes a word so that a shell reads it as one.
func ShellWord(word string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./_-"
	if word != "" && strings.Trim(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
