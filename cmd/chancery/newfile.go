package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// newFile is a file that this command has made, and fills when there is something to put in. All methods
// do nothing on nil.
type newFile struct {
	path string
	file *os.File
}

// createNew makes a file. One that exists is an error: nothing is overwritten.
func createNew(path string, mode fs.FileMode) (*newFile, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil, fmt.Errorf("%w: %s exists and is not overwritten, so nothing was asked: move it away, or name another file (--help says how)", errUsage, path)
	case err != nil:
		return nil, fmt.Errorf("%w: nothing was asked: %w", errUsage, err)
	}
	return &newFile{path, f}, nil
}

func (n *newFile) fill(content []byte) error {
	if n == nil {
		return nil
	}
	_, err := n.file.Write(content)
	return errors.Join(err, n.file.Sync(), n.file.Close())
}

// discard removes the file again.
func (n *newFile) discard() {
	if n == nil {
		return
	}
	n.file.Close() // it may be closed already
	os.Remove(n.path)
}
