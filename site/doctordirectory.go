package site

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/chancery-ca/chancery/ldapsync"
)

func (e *examination) checkDirectory(ctx context.Context) ([]Finding, error) {
	if e.config.Directory == nil {
		return nil, nil
	}
	if path, ok := e.config.Directory.file(); ok {
		return e.directoryFileIsOurs(path)
	}
	opened, err := e.config.Directory.open()
	if err != nil {
		return nil, err
	}
	servers, ok := opened.(*ldapsync.LDAP)
	if !ok {
		return nil, opened.Close()
	}
	found := e.judgeServers(servers.Probe(ctx))
	return found, servers.Close()
}

// directoryFileIsOurs looks whether the daemon can replace the file as a whole, as it does.
func (e *examination) directoryFileIsOurs(path string) ([]Finding, error) {
	if _, err := os.Stat(path); err != nil {
		return e.unusableFile("directory.file", path, err)
	}
	daemon, ok := e.daemonUser()
	if !ok {
		return nil, nil
	}
	for _, need := range []struct {
		path, verb string
		what       fs.FileMode
	}{{path, "read", 4}, {path + ".lock", "write to", 2}, {filepath.Dir(path), "write to", 2}} {
		can, err := daemon.reaches(need.path, need.what)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the lock is made when it is needed
		} else if err != nil {
			return nil, err
		}
		if !can {
			return []Finding{e.find("directory.file", path, "uid %d cannot %s %s", daemon.uid, need.verb, need.path)}, nil
		}
	}
	return nil, nil
}

// judgeServers makes findings of what servers said. While one of them is as it should be, the others are
// only missing as its reserve.
func (e *examination) judgeServers(probed []ldapsync.Probed) []Finding {
	failed := make(map[string]bool)
	for _, p := range probed {
		if p.Err != nil && !errors.Is(p.Err, ldapsync.ErrNothing) {
			failed[p.URL] = true
		}
	}
	works := false
	for _, p := range probed {
		works = works || !failed[p.URL]
	}
	var found []Finding
	for _, p := range probed {
		if p.Err == nil {
			continue
		}
		about := ""
		if p.Purpose != "" {
			about = "entries of the purpose " + string(p.Purpose) + ": "
		}
		f := e.find(directoryCode(p.Err), p.URL, "%s%v", about, p.Err)
		if works && f.Severity == SeverityCritical {
			f.Severity = SeverityWarning
		}
		found = append(found, f)
	}
	return found
}

func directoryCode(err error) string {
	if errors.Is(err, context.DeadlineExceeded) { // whatever it was about to do
		return "directory.unreachable"
	}
	for _, known := range []struct {
		is   error
		code string
	}{
		{ldapsync.ErrTLS, "directory.tls"}, {ldapsync.ErrBind, "directory.bind"}, {ldapsync.ErrNoBase, "directory.base"},
		{ldapsync.ErrNoUUID, "directory.uuid"}, {ldapsync.ErrMayNot, "directory.rights"},
		{ldapsync.ErrNotWriter, "directory.readonly"}, {ldapsync.ErrNothing, "directory.empty"},
	} {
		if errors.Is(err, known.is) {
			return known.code
		}
	}
	return "directory.unreachable"
}
