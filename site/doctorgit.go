package site

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/crl/gitrepo"
	"github.com/chancery-ca/chancery/crl/list"
	"github.com/chancery-ca/chancery/store"
)

// checkGit looks whether lists can be published, and at those that hosts would pull now.
func (e *examination) checkGit(ctx context.Context) ([]Finding, error) {
	before, err := e.lists(ctx)
	if err != nil {
		return nil, err
	}
	where := e.config.Git.Where()
	remote, err := e.config.Git.Open()
	if err != nil {
		return e.unusableFile("git.unreachable", where, err)
	}
	files, tip, err := gitrepo.Read(ctx, remote, e.config.Git.Folder)
	if err != nil {
		return e.unusableFile("git.unreachable", where, err)
	}
	found, err := e.mayPush(ctx, remote)
	if err != nil {
		return found, err
	}
	if tip.Commit == "" {
		return append(found, e.find("git.branch", where, "there is no branch %s", e.config.Git.Branch)), nil
	}
	// The daemon may have published between the two looks at the books.
	after, err := e.lists(ctx)
	if err != nil {
		return found, err
	}
	some, err := e.judgeTip(ctx, files, before, after)
	return append(found, some...), err
}

// lists gives what the books say of each issuer's list; nothing without a store.
func (e *examination) lists(ctx context.Context) (map[cert.Issuer]store.List, error) {
	s, err := e.store()
	if err != nil {
		return nil, nil //nolint:nilerr // of which checkService tells
	}
	lists, err := s.Lists(ctx)
	if err != nil {
		return nil, err
	}
	known := make(map[cert.Issuer]store.List)
	for _, l := range lists {
		known[l.Issuer] = l
	}
	return known, nil
}

func (e *examination) mayPush(ctx context.Context, remote gitrepo.Remote) ([]Finding, error) {
	hosted, ok := remote.(*gitrepo.Hosted)
	if !ok {
		return e.mayWrite()
	}
	clock, err := hosted.Probe(ctx)
	if err != nil {
		return []Finding{e.find("git.push", e.config.Git.Where(), "%v", err)}, nil
	}
	if away := e.Now().Sub(clock); !clock.IsZero() && away.Abs() > clockAway {
		return []Finding{e.find("clock.server", e.config.Git.Where(), "its clock says %s, ours is %s away", clock.UTC().Format(time.RFC3339), away.Round(time.Second))}, nil
	}
	return nil, nil
}

// mayWrite looks at a repository on this machine.
func (e *examination) mayWrite() ([]Finding, error) {
	path, _ := e.config.Git.local()
	var found []Finding
	if daemon, ok := e.daemonUser(); ok {
		for _, folder := range []string{path, filepath.Join(path, "objects"), filepath.Join(path, "refs/heads")} {
			if can, err := daemon.reaches(folder, 2); err != nil {
				return nil, err
			} else if !can {
				found = append(found, e.find("git.push", path, "uid %d cannot write to %s", daemon.uid, folder))
				break
			}
		}
	}
	lock := filepath.Join(path, "refs/heads", filepath.FromSlash(e.config.Git.Branch)+".lock")
	info, err := os.Stat(lock)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return found, err
	case e.Now().Sub(info.ModTime()) > time.Minute:
		found = append(found, e.find("git.locked", lock, "it is there since %s", info.ModTime().UTC().Format(time.RFC3339)))
	}
	return found, nil
}

// judgeTip compares the lists at the tip with those that the books knew before and after it was read.
func (e *examination) judgeTip(ctx context.Context, files gitrepo.Files, before, after map[cert.Issuer]store.List) ([]Finding, error) {
	s, err := e.store()
	if err != nil {
		return nil, nil //nolint:nilerr // of which checkService tells
	}
	entries, err := s.Ceremony(ctx)
	if err != nil {
		return nil, err
	}
	authorities := make(map[cert.Issuer][]byte)
	rootLists := make(map[string]bool) // SHA-256
	for _, entry := range entries {
		switch named := entry.Event.(type) {
		case *audit.RootNamed:
			authorities[cert.Root] = named.Certificate
		case *audit.IssuerNamed:
			authorities[named.Issuer] = named.Certificate
		case *audit.RootListNamed:
			rootLists[named.SHA256] = true
		}
	}
	var found []Finding
	for id, der := range authorities {
		authority, err := x509.ParseCertificate(der)
		if err != nil {
			return found, fmt.Errorf("reading the certificate of %s on the log: %w", id, err)
		}
		file := files[string(id)+".crl"]
		parsed, some := e.judgeList(id, authority, file)
		found = append(found, some...)
		switch {
		case parsed == nil:
		case id == cert.Root:
			if !rootLists[cert.SHA256(file)] {
				found = append(found, e.find("git.list_unknown", string(id), "the log does not know list %s", parsed.Number))
			}
		default:
			found = append(found, e.judgeNumber(id, parsed.Number, cert.SHA256(file), before[id], after[id])...)
		}
	}
	return found, nil
}

// judgeList gives the list if it is one of that CA.
func (e *examination) judgeList(id cert.Issuer, authority *x509.Certificate, der []byte) (*list.List, []Finding) {
	if der == nil {
		return nil, []Finding{e.find("git.list_missing", string(id), "there is no %s/%s.crl", e.config.Git.Folder, id)}
	}
	parsed, err := list.Parse(der)
	if err == nil {
		err = parsed.Verify(authority)
	}
	if err != nil {
		return nil, []Finding{e.find("git.list_bad", string(id), "%v", err)}
	}
	if e.Now().After(parsed.NextUpdate) {
		return parsed, []Finding{e.find("git.list_expired", string(id), "list %s expired at %s", parsed.Number, parsed.NextUpdate.Format(time.RFC3339))}
	}
	return parsed, nil
}

func (e *examination) judgeNumber(id cert.Issuer, number *big.Int, sum string, before, after store.List) []Finding {
	if sum == before.SHA256 || sum == after.SHA256 {
		return nil
	}
	published, wasPublished := new(big.Int).SetString(before.PublishedNumber, 10)
	last, wasSigned := new(big.Int).SetString(after.Number, 10)
	switch {
	case !wasSigned || number.Cmp(last) >= 0:
		return []Finding{e.find("git.list_unknown", string(id), "list %s is at the tip, and the last that the books know is %q", number, after.Number)}
	case wasPublished && number.Cmp(published) < 0:
		return []Finding{e.find("git.list_old", string(id), "list %s is at the tip, and list %s was published before", number, published)}
	}
	return nil // a newer one is signed and on its way
}
