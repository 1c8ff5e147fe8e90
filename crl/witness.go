package crl

import (
	"context"
	"errors"
	"fmt"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/crl/gitrepo"
)

// ErrRolledBack says that git has seen more of the log, or another log, than there is: store and key
// room were both put back from old copies, which agree with each other. Nothing must be signed.
var ErrRolledBack = errors.New("git holds a checkpoint that this log does not continue: the store and the key room are old copies; put the newest ones back")

// ErrNoWitness says that nothing on the remote tells what the log was, although lists were published: it is
// another repository, or it was emptied.
var ErrNoWitness = errors.New("git holds no checkpoint of this log, although its lists were published: it is another repository, or was emptied")

// Witness compares the log with the checkpoint on a publisher's remote. It returns ErrRolledBack if they
// contradict each other, and ErrNoWitness; any other error means that the remote could not be read.
func (l *Loop) Witness(ctx context.Context, p *gitrepo.Publisher) error {
	files, _, err := gitrepo.Read(ctx, p.Remote, p.Folder)
	if err != nil {
		return fmt.Errorf("reading the remote: %w", err)
	}
	if _, err := audit.OpenCheckpoint(files[checkpointFile], l.signer.Hello().LogKey); err == nil {
		return l.heed(ctx, files[checkpointFile])
	}
	books, err := l.store.Lists(ctx)
	if err != nil {
		return err
	}
	for _, kept := range books {
		if kept.PublishedNumber != "" {
			return ErrNoWitness
		}
	}
	return nil
}

// heed checks that the log continues a checkpoint. One that the log key did not sign proves nothing.
func (l *Loop) heed(ctx context.Context, note []byte) error {
	seen, err := audit.OpenCheckpoint(note, l.signer.Hello().LogKey)
	if err != nil {
		return nil //nolint:nilerr // anybody can write such a file
	}
	if size, _ := l.store.Head(); seen.Size > size {
		return fmt.Errorf("%w (it covers %d leaves, the log has %d)", ErrRolledBack, seen.Size, size)
	}
	root, err := l.store.Root(ctx, seen.Size)
	if err != nil {
		return err
	}
	if root != seen.Root {
		return fmt.Errorf("%w (the roots at %d leaves differ)", ErrRolledBack, seen.Size)
	}
	return nil
}
