package site

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// ConfigReport is what a check of configurations found.
type ConfigReport struct {
	Checked  []string  `json:"checked"`
	Skipped  []string  `json:"skipped,omitempty"` // with the reason; nothing is known of these
	Problems []Problem `json:"problems"`
}

// CheckConfig checks the configuration at path, and whether the files that it names are there, can be read,
// have the right mode and hold what they should. In an installation's folder it checks that of the daemon and
// that of the key room. It starts nothing and asks nobody. bin is the folder of the other programs: the key
// room's files are read by its own.
func CheckConfig(path, bin string) (ConfigReport, error) {
	r := ConfigReport{Problems: []Problem{}}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		r.daemon(filepath.Join(path, ConfigName))
		err := r.room(filepath.Join(path, RoomConfigName), bin)
		if err == nil && len(r.Skipped)+len(r.Problems) == 0 {
			err = r.signers(path)
		}
		return r, err
	}
	if strings.HasSuffix(path, ".json") {
		return r, r.room(path, bin)
	}
	r.daemon(path)
	return r, nil
}

func (r *ConfigReport) daemon(path string) {
	r.Checked = append(r.Checked, path)
	c, d, err := readConfig(path)
	if err == nil {
		err = d.problems(c.checkFiles())
	}
	var found Problems
	if errors.As(err, &found) {
		r.Problems = append(r.Problems, found...)
	}
}

// room has the key room's program check its own configuration. Another user's is left to that user.
func (r *ConfigReport) room(path, bin string) error {
	if err := readable(path); errors.Is(err, fs.ErrPermission) {
		r.Skipped = append(r.Skipped, fmt.Sprintf("%v: as the key room's user run: chancery-keyroom check --config %s", err, path))
		return nil
	}
	r.Checked = append(r.Checked, path)
	var said, failure strings.Builder
	cmd := exec.Command(filepath.Join(bin, "chancery-keyroom"), "check", "--config", path, "--output", "json")
	cmd.Stdout, cmd.Stderr = &said, &failure
	err := cmd.Run()
	var problems []Problem
	if parsed := json.Unmarshal([]byte(said.String()), &problems); parsed != nil {
		return fmt.Errorf("checking %s: %w\n%s", path, errors.Join(err, parsed), strings.TrimSpace(failure.String()))
	}
	r.Problems = append(r.Problems, problems...)
	return nil
}

// signers compares the keys that callers sign with. Where the key room has none it takes the daemon's word for who
// asked, and nobody would notice.
func (r *ConfigReport) signers(dir string) error {
	c, err := LoadConfig(filepath.Join(dir, ConfigName))
	if err != nil {
		return err
	}
	path, room, err := loadRoomFiles(dir)
	if err != nil {
		return err
	}
	keys := make(map[string][2][]string)
	for _, one := range c.Callers {
		keys[one.Name] = [2][]string{slices.Sorted(slices.Values(one.SigningKeys))}
	}
	for _, one := range room.Callers {
		keys[one.Name] = [2][]string{keys[one.Name][0], slices.Sorted(slices.Values(one.SigningKeys))}
	}
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		if !slices.Equal(keys[name][0], keys[name][1]) {
			r.Problems = append(r.Problems, Problem{File: path, Reason: fmt.Sprintf("the signing_keys of caller %s are %s", name, differ(keys[name]))})
		}
	}
	return nil
}

// differ says what is wrong with the keys that a caller has in the daemon's file and in the key room's, and what to do.
func differ(keys [2][]string) string {
	switch {
	case len(keys[0]) == 0:
		return "not in " + ConfigName + ": put them there if the caller signs its requests, or take them out here, and restart the key room"
	case len(keys[1]) == 0:
		return "missing here: the key room does not hold the daemon to those in " + ConfigName + "; put them here, and restart the key room"
	}
	return "other ones than in " + ConfigName + ": make them equal, and restart the key room"
}

// checkFiles looks at every file that the configuration names.
func (c *Config) checkFiles() error {
	var failed []error
	fail := func(key string, err error) {
		if err != nil {
			failed = append(failed, wrong(key, "%s: %w", key, err))
		}
	}
	fail("state", readable(c.StorePath()))
	fail("trust", c.checkLogKey())
	fail("secrets", readable(c.secret(serverCertFile)))
	for _, name := range []string{serverKeyFile, gitKeyFile} {
		fail("secrets", secret(c.secret(name)))
	}
	if len(failed) == 0 { // otherwise it is said already
		_, err := c.identity()
		fail("secrets", err)
		_, err = c.commitKey()
		fail("secrets", err)
	}
	failed = append(failed, c.checkCallers())
	fail("git", c.Git.checkFiles(fail))
	if c.Directory != nil {
		fail("directory", c.Directory.checkFiles(fail))
	}
	return errors.Join(failed...)
}

func (c *Config) checkLogKey() error {
	key, err := c.LogKey()
	if err != nil {
		return err
	}
	if _, err := note.NewVerifier(key); err != nil {
		return fmt.Errorf("%s: %w", c.trusted("log.pub"), err)
	}
	return nil
}

// checkFiles tells of each file, and then whether the repository can be opened with them.
func (g *GitConfig) checkFiles(fail func(key string, err error)) error {
	fine := checkAll(g.paths(), []string{"git.repository"}, fail)
	if !fine {
		return nil
	}
	_, err := g.Open()
	return err
}

func (d *DirectoryConfig) checkFiles(fail func(key string, err error)) error {
	if path, ok := d.file(); ok {
		fail("directory.url", readable(path))
		return nil
	}
	if !checkAll(d.paths(), nil, fail) {
		return nil
	}
	opened, err := d.open()
	if err != nil {
		return err
	}
	return errors.Join(checkFiles(opened), opened.Close())
}

// checkAll looks at the files of those keys that are set, and tells whether all are fine.
func checkAll(keys []pathKey, folders []string, fail func(key string, err error)) bool {
	fine := true
	for _, k := range keys {
		var err error
		switch {
		case *k.path == "" || slices.Contains(folders, k.key):
			continue
		case k.secret:
			err = secret(*k.path)
		case strings.HasSuffix(k.key, ".ca"), strings.HasSuffix(k.key, ".client_cert"):
			err = certificates(*k.path)
		default:
			err = readable(*k.path)
		}
		fail(k.key, err)
		fine = fine && err == nil
	}
	return fine
}

func readable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", path)
	}
	return err
}

// secret checks that a file can be read, by us and not by everybody.
func secret(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o007 != 0 {
		return fmt.Errorf("%s is open to everybody (mode %04o); chmod 0400 it, and think about who has read it", path, info.Mode().Perm())
	}
	return readable(path)
}

func certificates(path string) error {
	text, err := os.ReadFile(path)
	if err == nil && !x509.NewCertPool().AppendCertsFromPEM(text) {
		err = fmt.Errorf("%s holds no certificate", path)
	}
	return err
}
