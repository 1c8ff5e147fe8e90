package keyroom

import (
	"crypto/rand"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestCeremonyOverwritesNothing runs a ceremony in folders that hold something of one already: it fails,
// and what was there is as it was.
func TestCeremonyOverwritesNothing(t *testing.T) {
	for _, name := range []string{"keyroom", "offline", "secrets", "trust"} {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		err := Ceremony{Dir: dir, Org: "Example", OfflinePassphrase: "x", Now: time.Now, Rand: rand.Reader}.Init()
		if err == nil || !strings.Contains(err.Error(), "never overwritten") {
			t.Errorf("%s was there: %v", name, err)
		}
	}
	dir := t.TempDir()
	err := Ceremony{Dir: dir, Org: "Exam\nple", OfflinePassphrase: "x", Now: time.Now, Rand: rand.Reader}.Init()
	if err == nil {
		t.Error("a newline stands in the name of a CA")
	}
}

// TestCeremonyModes looks at who may read what a ceremony writes, and that no secret is twice there.
func TestCeremonyModes(t *testing.T) {
	dir := install(t, noon)
	made.Lock()
	master := made.dirs[noon]
	made.Unlock()
	err := filepath.WalkDir(master, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		name, mode := strings.TrimPrefix(path, master), info.Mode().Perm()
		switch {
		case strings.HasPrefix(name, "/trust"), strings.HasSuffix(name, ".pem"):
			if mode&0o022 != 0 {
				t.Errorf("%s has mode %v", name, mode)
			}
		case strings.HasSuffix(name, ".key"), strings.HasPrefix(name, "/secrets/"):
			if mode != 0o400 {
				t.Errorf("%s has mode %v, want 0400", name, mode)
			}
		default:
			if mode&0o077 != 0 {
				t.Errorf("%s has mode %v", name, mode)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	secret, err := os.ReadFile(filepath.Join(dir, "secrets", "keyroom.passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	for _, passphrase := range []string{strings.TrimSpace(string(secret)), "correct horse battery"} {
		out := tool(t, nil, "sh", "-c", `grep -rlF -- "$1" "$2" || true`, "sh", passphrase, dir)
		if files := strings.Fields(out); len(files) > 1 || len(files) == 1 && !strings.HasSuffix(files[0], "secrets/keyroom.passphrase") {
			t.Errorf("a passphrase stands in %v", files)
		}
	}
}

// TestConfig spoils keyroom.json.
func TestConfig(t *testing.T) {
	dir := install(t, noon)
	path := filepath.Join(dir, "keyroom.json")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	edit := func(change func(map[string]any)) string {
		var c map[string]any
		if err := json.Unmarshal(good, &c); err != nil {
			t.Fatal(err)
		}
		change(c)
		text, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	issuer := func(c map[string]any) map[string]any { return c["issuers"].([]any)[0].(map[string]any) }
	for name, text := range map[string]string{
		"an unknown member":           edit(func(c map[string]any) { c["debug"] = true }),
		"an unknown member of issuer": edit(func(c map[string]any) { issuer(c)["force"] = true }),
		"something behind":            string(good) + "{}",
		"empty":                       "",
		"no room":                     edit(func(c map[string]any) { delete(c, "room") }),
		"no socket":                   edit(func(c map[string]any) { delete(c, "socket") }),
		"no issuers":                  edit(func(c map[string]any) { c["issuers"] = []any{} }),
		"an issuer twice":             edit(func(c map[string]any) { c["issuers"] = append(c["issuers"].([]any), issuer(c)) }),
		"an issuer that is a path":    edit(func(c map[string]any) { issuer(c)["id"] = "../users" }),
		"an unknown purpose":          edit(func(c map[string]any) { issuer(c)["purposes"] = []any{"ca"} }),
		"no purpose":                  edit(func(c map[string]any) { issuer(c)["purposes"] = []any{} }),
		"no validity":                 edit(func(c map[string]any) { delete(issuer(c), "max_validity_days") }),
		"no list validity":            edit(func(c map[string]any) { issuer(c)["max_list_days"] = -1 }),
		"no rate":                     edit(func(c map[string]any) { c["certificates_per_hour"] = 0 }),
	} {
		write(text)
		if c, err := LoadConfig(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v (%+v)", name, err, c)
		}
	}
	write(string(good))
	c, err := LoadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if c.State != filepath.Join(dir, "keyroom") || c.Socket != filepath.Join(dir, "keyroom", "socket") {
		t.Errorf("paths are not beside the file: %+v", c)
	}
}

// TestMissingState takes away or exchanges what a room needs. It does not open, and makes nothing anew.
func TestMissingState(t *testing.T) {
	for _, name := range []string{"log.key", "root.pem", "root.crl.pem", "users.pem", "users.key"} {
		h := &hall{T: t, dir: install(t, noon), clock: &clock{t: noon}, logged: new(lockedBuffer)}
		var err error
		if h.config, err = LoadConfig(filepath.Join(h.dir, "keyroom.json")); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(h.config.State, name)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(h.options()); err == nil {
			t.Errorf("a room opened without %s", name)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s was made anew", name)
		}
		other, err := os.ReadFile(filepath.Join(h.config.State, map[string]string{
			"log.key": "users.key", "root.pem": "root.crl.pem", "root.crl.pem": "root.pem",
			"users.pem": "servers.pem", "users.key": "servers.key",
		}[name]))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, other, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(h.options()); err == nil {
			t.Errorf("a room opened with another file for %s", name)
		}
	}
}
