package site

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Where the installation of a machine is. The units in deploy/systemd name the same places.
const (
	etcFolder    = "/etc/chancery"
	daemonFolder = "/var/lib/chancery"
	roomFolder   = "/var/lib/chancery-keyroom"
	roomSocket   = "/run/chancery-keyroom/socket"
	roomDelivery = "/run/chancery-keyroom/delivery" // in memory: no disk and no copy of one holds a delivery key
)

// System is the making of the installation of a machine, whose two processes run as two users. Init.Dir
// is not used.
type System struct {
	Init
	Daemon  Account
	Room    Account
	Offline string // new folder for the offline keys, absolute
}

// Account is a user and its group.
type Account struct{ UID, GID int }

// drafted is a folder that is made under another name, and then gets its own.
type drafted struct{ draft, name string }

// Run makes everything in drafts and then gives them their names, the configuration last: the units do
// not start without it. What exists is never touched. The first certificates are issued by a key room
// that runs as the caller of Run, root, in the draft.
func (s System) Run(ctx context.Context) error {
	host, err := s.check()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if s.Offline, err = filepath.Abs(s.Offline); err != nil {
		return fmt.Errorf("%w: --offline: %w", ErrConfig, err)
	}
	if err := s.nothingThere(); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	var drafts []string
	defer func() {
		for _, draft := range drafts {
			os.RemoveAll(draft)
		}
	}()
	// A draft lies beside what it becomes, on the same file system.
	for _, beside := range []string{daemonFolder, etcFolder, s.Offline} {
		if err := os.MkdirAll(filepath.Dir(beside), 0o755); err != nil {
			return fmt.Errorf("making the folder: %w", err)
		}
		draft, err := os.MkdirTemp(filepath.Dir(beside), ".chancery-init-")
		if err != nil {
			return fmt.Errorf("making the folder: %w", err)
		}
		drafts = append(drafts, draft)
	}
	state, etc, offline := drafts[0], drafts[1], drafts[2]
	if err := s.fill(ctx, state, host); err != nil {
		return err
	}
	if err := s.fillEtc(state, etc); err != nil {
		return err
	}
	if err := copyFiles(filepath.Join(state, "offline"), offline, 0o400); err != nil {
		return err
	}
	all, err := s.share(state)
	if err != nil {
		return err
	}
	return giveNames(append(all, drafted{offline, s.Offline}, drafted{etc, etcFolder}))
}

// nothingThere refuses to make an installation where one is, or part of one.
func (s System) nothingThere() error {
	for _, path := range []string{etcFolder, daemonFolder, roomFolder, s.Offline} {
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("%s exists; an installation is never overwritten: if it is what a power cut left of an init, and %s is not there, remove it", path, filepath.Join(etcFolder, ConfigName))
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// fillEtc writes what the configuration is when everything has its place.
func (s System) fillEtc(from, etc string) error {
	if err := os.Chmod(etc, 0o755); err != nil {
		return fmt.Errorf("making %s: %w", etcFolder, err)
	}
	text := s.configText(places{
		roomSocket, daemonFolder + "/state", daemonFolder + "/secrets", etcFolder + "/trust",
		daemonFolder + "/" + directoryFile, daemonFolder + "/" + repositoryFolder,
	})
	if err := writeFor(filepath.Join(etc, ConfigName), Account{0, s.Daemon.GID}, 0o640, text); err != nil {
		return err
	}
	text, err := s.roomConfig(filepath.Join(from, RoomConfigName))
	if err != nil {
		return err
	}
	if err := writeFor(filepath.Join(etc, RoomConfigName), Account{0, s.Room.GID}, 0o640, text); err != nil {
		return err
	}
	trust := filepath.Join(etc, "trust")
	if err := errors.Join(os.Mkdir(trust, 0o755), os.Chmod(trust, 0o755)); err != nil {
		return fmt.Errorf("making %s: %w", trust, err)
	}
	if err := copyFiles(filepath.Join(from, "trust"), trust, 0o444); err != nil {
		return err
	}
	return syncFolder(etc)
}

// roomConfig is keyroom.json as the ceremony wrote it, with other places and the daemon's user. The rest
// is the key room's own affair.
func (s System) roomConfig(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading keyroom.json: %w", err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		return nil, fmt.Errorf("reading keyroom.json: %w", err)
	}
	for name, value := range map[string]any{
		"socket": roomSocket, "state": roomFolder, "delivery_folder": roomDelivery, "passphrase_file": roomFolder + "/passphrase", "allowed_uids": []int{s.Daemon.UID},
	} {
		if members[name], err = json.Marshal(value); err != nil {
			return nil, fmt.Errorf("writing keyroom.json: %w", err)
		}
	}
	if text, err = json.MarshalIndent(members, "", "  "); err != nil {
		return nil, fmt.Errorf("writing keyroom.json: %w", err)
	}
	return append(text, '\n'), nil
}

// share gives each of the two users a folder with what is theirs.
func (s System) share(draft string) ([]drafted, error) {
	room, daemon := filepath.Join(draft, "keyroom"), filepath.Join(draft, "daemon")
	if err := os.Mkdir(daemon, 0o700); err != nil {
		return nil, fmt.Errorf("making %s: %w", daemonFolder, err)
	}
	if err := os.Rename(filepath.Join(draft, "secrets/keyroom.passphrase"), filepath.Join(room, "passphrase")); err != nil {
		return nil, fmt.Errorf("making %s: %w", roomFolder, err)
	}
	for _, name := range []string{"state", "secrets", "callers", directoryFile, repositoryFolder} {
		if err := os.Rename(filepath.Join(draft, name), filepath.Join(daemon, name)); err != nil {
			return nil, fmt.Errorf("making %s: %w", daemonFolder, err)
		}
	}
	for folder, owner := range map[string]Account{daemon: s.Daemon, room: s.Room} {
		if err := give(folder, owner); err != nil {
			return nil, err
		}
	}
	return []drafted{{room, roomFolder}, {daemon, daemonFolder}}, nil
}

// give makes everything below folder, and folder itself, a user's own, durably.
func give(folder string, owner Account) error {
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := os.Lchown(path, owner.UID, owner.GID); err != nil || !d.IsDir() {
			return err
		}
		return syncFolder(path)
	})
	if err != nil {
		return fmt.Errorf("giving %s to its user: %w", filepath.Base(folder), err)
	}
	return nil
}

// giveNames gives folders their names, in order. If one cannot be had, those before it are taken back.
func giveNames(all []drafted) error {
	for n, t := range all {
		err := os.Rename(t.draft, t.name)
		if err == nil {
			err = syncFolder(filepath.Dir(t.name))
			n++
		}
		if err != nil {
			for _, made := range all[:n] {
				err = errors.Join(err, os.RemoveAll(made.name))
			}
			return fmt.Errorf("naming the installation: %w", err)
		}
	}
	return nil
}

// copyFiles copies the files of a folder to another one, for root, with this mode whatever the umask.
func copyFiles(from, to string, mode os.FileMode) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return fmt.Errorf("copying %s: %w", filepath.Base(from), err)
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			return fmt.Errorf("copying %s: %w", e.Name(), err)
		}
		if err := writeFor(filepath.Join(to, e.Name()), Account{}, mode, text); err != nil {
			return err
		}
	}
	return syncFolder(to)
}

// writeFor writes a new file that belongs to owner, whatever the umask.
func writeFor(path string, owner Account, mode os.FileMode, data []byte) error {
	if err := writeNew(path, 0o600, data); err != nil {
		return err
	}
	if err := errors.Join(os.Chown(path, owner.UID, owner.GID), os.Chmod(path, mode)); err != nil {
		return fmt.Errorf("writing %s: %w", filepath.Base(path), err)
	}
	return nil
}
