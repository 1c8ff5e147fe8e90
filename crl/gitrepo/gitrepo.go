// Package gitrepo writes the files below one folder of a branch as signed
// commits, and reads them back.
//
// It keeps no worktree: blobs, the trees on the path and the commit are made
// as objects, every other entry of those trees is carried over byte for byte,
// and nothing else is looked at. It never forces: a branch that moved is read
// again and the change is made anew on the new tip, so that other committers'
// work is neither lost nor rewritten.
//
// What the repository contains is untrusted input. Every object is bounded and
// its hash recomputed; a folder that somebody replaced by a link, a file or a
// submodule is refused with ErrHostile, never followed.
//
// The branch is one of a bare repository on this machine (Local), or one on a
// git server, over https or ssh (Hosted).
//
// It imports the standard library, go-git's object storage, sshsig,
// x/crypto/ssh and crashpoint, and nothing else of ours.
package gitrepo

import (
	"context"
	"errors"

	"github.com/go-git/go-git/v5/plumbing"
)

var (
	// ErrMoved says that the branch is no longer where it was read: build
	// again on the new tip.
	ErrMoved = errors.New("the branch moved")
	// ErrLocked says that somebody holds the branch's lock for too long. The
	// text names the file.
	ErrLocked = errors.New("the branch is locked")
	// ErrHostile says that the repository contains something that is refused:
	// not a folder where the folder should be, a malformed or an oversized
	// object.
	ErrHostile = errors.New("refused content of the repository")
)

// Limits on what is read. Everything above is ErrHostile.
const (
	maxFile    = 64 << 20  // bytes of one file below the folder
	maxFolder  = 256 << 20 // bytes of all of them
	maxEntries = 10_000    // entries below the folder
	maxDepth   = 16        // folders below the folder
	maxTree    = 64 << 20  // bytes of one tree object
	maxCommit  = 4 << 20   // bytes of one commit object
	maxHistory = 1_000_000 // commits of one walk
)

// Tip is the newest commit of a branch as somebody read it.
type Tip struct {
	Commit string // 40 lower-case hex digits; "" while there is no branch
}

// Object is a new git object.
type Object struct {
	Type    plumbing.ObjectType
	Hash    plumbing.Hash
	Content []byte
}

// Remote is one branch of a repository, wherever that is.
type Remote interface {
	// Fetch returns the newest tip and a reader of its objects: the commits
	// reachable from it as far back as the one last pushed here, the trees on
	// the path to the folder, and the folder.
	Fetch(ctx context.Context) (Tip, *Objects, error)
	// FetchAll is Fetch with all commits that are reachable from the tip, and
	// the folder in each. On a server that takes a while.
	FetchAll(ctx context.Context) (Tip, *Objects, error)
	// Push stores the objects and then moves the branch from old to commit,
	// if it still is at old, durably; otherwise nothing changes and the error
	// is ErrMoved, or ErrRefused if the server would not have the commit. After
	// any other error the branch may have moved.
	Push(ctx context.Context, old Tip, commit plumbing.Hash, objects []Object) error
}

// Files maps a path relative to the folder, as "users.crl" or "ca/users.pem",
// to the file's content. Links and submodules are no files and do not appear.
type Files map[string][]byte

// Change is what a commit does to the folder. Paths that it does not name stay
// as they are.
type Change struct {
	Files   Files    // written, each as a plain file (mode 100644), over whatever has the name
	Remove  []string // removed if they are there
	Message string   // subject, empty line, body, empty line, trailers
}
