package site

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// What has to be free, in octets and files. For doctor a copy of what is there must fit beside it, too, or no
// backup can be made or put back.
const (
	lowDisk   = 512 << 20
	fullDisk  = 64 << 20
	lowInodes = 1000
)

// checkDisk looks at each file system that is written, once.
func (e *examination) checkDisk(context.Context) ([]Finding, error) {
	places := []string{e.config.State, e.roomFiles.State}
	if path, ok := e.config.Git.local(); ok && path != "" {
		places = append(places, path)
	}
	if path, ok := e.config.Directory.file(); ok {
		places = append(places, filepath.Dir(path))
	}
	var found []Finding
	var denied error
	need := make(map[uint64]uint64) // octets that are there, by device
	first := make(map[uint64]string)
	var devices []uint64
	for _, place := range places {
		var stat syscall.Stat_t
		err := syscall.Stat(place, &stat)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			found = append(found, e.find("disk.gone", place, "%v", err))
			continue
		case err != nil:
			denied = &fs.PathError{Op: "stat", Path: place, Err: err}
			continue
		}
		if first[stat.Dev] == "" {
			first[stat.Dev] = place
			devices = append(devices, stat.Dev)
		}
		need[stat.Dev] += sizeOf(place)
	}
	for _, device := range devices {
		some, err := e.judgeDisk(first[device], need[device])
		found = append(found, some...)
		denied = errors.Join(denied, err)
	}
	return found, denied
}

// sizeOf adds up the files in a folder, but not below it: what is large in ours is directly in it.
func sizeOf(folder string) uint64 {
	var sum uint64
	entries, _ := os.ReadDir(folder) // what cannot be read is not ours to copy
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
			sum += uint64(info.Size())
		}
	}
	return sum
}

func (e *examination) judgeDisk(place string, there uint64) ([]Finding, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(place, &s); err != nil {
		return nil, &fs.PathError{Op: "statfs", Path: place, Err: err}
	}
	var found []Finding
	const readOnly = 1 // ST_RDONLY of statfs(2)
	if s.Flags&readOnly != 0 {
		found = append(found, e.find("disk.readonly", place, "so says the kernel"))
	}
	free := s.Bavail * uint64(s.Bsize)
	switch {
	case free < fullDisk:
		found = append(found, e.find("disk.full", place, "%d MiB are free", free>>20))
	case free < max(lowDisk, there):
		found = append(found, e.find("disk.low", place, "%d MiB are free, and %d MiB are there", free>>20, there>>20))
	}
	if s.Files > 0 && s.Ffree < lowInodes {
		found = append(found, e.find("disk.inodes", place, "%d more files can be made", s.Ffree))
	}
	return found, nil
}
