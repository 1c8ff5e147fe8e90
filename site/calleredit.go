package site

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"syscall"

	"github.com/goccy/go-yaml"

	"github.com/chancery-ca/chancery/rpc"
)

// AddCaller puts a caller behind those in chancery.yaml at path, and gives the configuration that the file is
// then. Everything else in the file stays as it is, to the octet. What comes of it is checked as CheckConfig does
// before it takes the file's place, with its mode and owner; on a mistake nothing is changed, and the error is
// Problems.
func AddCaller(path string, caller rpc.Caller) (Config, error) {
	return editCallers(path, func(t *callersText, callers []rpc.Caller) ([]rpc.Caller, error) {
		if slices.ContainsFunc(callers, func(c rpc.Caller) bool { return c.Name == caller.Name }) {
			return nil, fmt.Errorf("%w: %s has a caller %q already", ErrConfig, path, caller.Name)
		}
		t.add(caller)
		return append(slices.Clone(callers), caller), nil
	})
}

// RemoveCaller takes a caller out of chancery.yaml at path, with the comment right above it, as AddCaller puts one
// in.
func RemoveCaller(path, name string) (Config, error) {
	return editCallers(path, func(t *callersText, callers []rpc.Caller) ([]rpc.Caller, error) {
		i := slices.IndexFunc(callers, func(c rpc.Caller) bool { return c.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("%w: %s has no caller %q", ErrConfig, path, name)
		}
		t.remove(i)
		return slices.Delete(slices.Clone(callers), i, i+1), nil
	})
}

// editCallers changes the text of the file by change, which gives the callers that are to be there then.
func editCallers(path string, change func(*callersText, []rpc.Caller) ([]rpc.Caller, error)) (after Config, err error) {
	if info, err := os.Lstat(path); err != nil {
		return after, fmt.Errorf("%w: %w", ErrConfig, err)
	} else if !info.Mode().IsRegular() {
		return after, fmt.Errorf("%w: %s is no file of its own, and is not replaced: change it by hand", ErrConfig, path)
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return after, fmt.Errorf("changing %s: %w", path, err)
	}
	defer folder.Close()
	if err := syscall.Flock(int(folder.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return after, fmt.Errorf("changing %s: another command is changing it: %w", path, err)
	}
	// A process that is being started right now may have a copy, until it runs, which closing leaves locked.
	defer func() { err = errors.Join(err, syscall.Flock(int(folder.Fd()), syscall.LOCK_UN)) }()
	want, d, err := parseConfig(path)
	if err != nil {
		return after, err
	}
	text, err := findCallers(d.text)
	if err != nil {
		return after, err
	}
	if want.Callers, err = change(text, want.Callers); err != nil {
		return after, err
	}
	if err := text.means(want); err != nil {
		return after, err
	}
	draft, err := draftBeside(path, text.bytes())
	if err != nil {
		return after, fmt.Errorf("changing %s: %w", path, err)
	}
	defer os.Remove(draft) // if it has not become the file
	var report ConfigReport
	if report.daemon(draft); len(report.Problems) > 0 {
		for i := range report.Problems {
			report.Problems[i].File = path
		}
		return after, Problems(report.Problems)
	}
	// Whoever edits by hand, or manages the machine, takes no lock, and may just have taken a caller out.
	if now, err := readText(path); err != nil || !bytes.Equal(now, d.text) {
		return after, fmt.Errorf("%w: %s was changed by somebody else meanwhile, and is left as it is", ErrConfig, path)
	}
	if err := errors.Join(os.Rename(draft, path), folder.Sync()); err != nil {
		return after, fmt.Errorf("changing %s: %w", path, err)
	}
	return LoadConfig(path)
}

// means makes sure that the text says what was wanted, and nothing else.
func (t *callersText) means(want Config) error {
	var c Config
	if err := yaml.NewDecoder(bytes.NewReader(t.bytes()), yaml.Strict()).Decode(&c); err != nil {
		return errByHand
	}
	if len(c.Callers) == 0 && len(want.Callers) == 0 {
		c.Callers, want.Callers = nil, nil
	}
	if c.Path, c.SHA256 = want.Path, want.SHA256; !reflect.DeepEqual(c, want) {
		return errByHand
	}
	return nil
}

// draftBeside writes text to a new file in the folder of one that it is to replace, of the same mode and owner.
func draftBeside(file string, text []byte) (path string, err error) {
	info, err := os.Stat(file)
	if err != nil {
		return "", err
	}
	f, err := os.CreateTemp(filepath.Dir(file), "."+ConfigName+".*")
	if err != nil {
		return "", err
	}
	owner := info.Sys().(*syscall.Stat_t)
	_, err = f.Write(text)
	// Changing the owner may change the mode.
	err = errors.Join(err, f.Chown(int(owner.Uid), int(owner.Gid)), f.Chmod(info.Mode().Perm()), f.Sync(), f.Close())
	if err != nil {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), err
}
