package review

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/crl/gitrepo"
)

const (
	checkpointFile    = "checkpoint"
	checkpointTrailer = "Audit-Checkpoint"
	maxNote           = 64 << 10
)

// The codes of a Finding.
const (
	CheckpointForm = "checkpoint.form" // not a note: too long, or not base64
	CRLForeign     = "crl.foreign"     // in the place of a list something that no CA of the log signed
)

// Finding is something in the repository that is not ours. It proves nothing against the log, because
// others can commit too, but somebody should ask who did it.
type Finding struct {
	Commit string `json:"commit"`
	Code   string `json:"code"`
	Reason string `json:"reason"`
}

// History is what the commits to the lists' folder hold.
type History struct {
	remote   gitrepo.Remote
	folder   string
	commits  map[string]bool
	notes    []seenNote
	findings []Finding
}

// seenNote is what stood where a checkpoint should, in the oldest commit that has it.
type seenNote struct {
	signed []byte
	commit string
	place  string
}

// ReadHistory reads the checkpoints from the whole history of a folder. It has to be read before the
// log is opened: in a log that grows meanwhile, everything that was committed before is then there.
func ReadHistory(ctx context.Context, remote gitrepo.Remote, folder string) (*History, error) {
	h := &History{remote: remote, folder: folder, commits: make(map[string]bool)}
	known := make(map[string]int) // by checksum
	err := gitrepo.History(ctx, remote, folder, func(c *gitrepo.Commit) error {
		h.commits[c.Hash] = true
		if text := c.Trailer(checkpointTrailer); text != "" {
			if signed, err := base64.StdEncoding.DecodeString(text); err == nil {
				h.note(known, c.Hash, "trailer "+checkpointTrailer, signed)
			} else {
				h.find(c.Hash, CheckpointForm, "the trailer %s is not base64", checkpointTrailer)
			}
		}
		file, ok, err := c.File(ctx, checkpointFile)
		switch {
		case errors.Is(err, gitrepo.ErrHostile):
			h.find(c.Hash, CheckpointForm, "%q", err.Error())
		case err != nil:
			return fmt.Errorf("reading the checkpoint of commit %s: %w", c.Hash, err)
		case ok:
			h.note(known, c.Hash, "file "+checkpointFile, file)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the history of folder %s: %w", folder, err)
	}
	return h, nil
}

func (h *History) note(known map[string]int, commit, place string, signed []byte) {
	if len(signed) > maxNote {
		h.find(commit, CheckpointForm, "the %s has %d octets; at most %d are read", place, len(signed), maxNote)
		return
	}
	sum := cert.SHA256(signed)
	if i, ok := known[sum]; ok {
		h.notes[i].commit, h.notes[i].place = commit, place // older: the walk goes back in time
		return
	}
	known[sum] = len(h.notes)
	h.notes = append(h.notes, seenNote{signed, commit, place})
}

func (h *History) find(commit, code, format string, args ...any) {
	h.findings = append(h.findings, Finding{commit, code, fmt.Sprintf(format, args...)})
}

func (n seenNote) source() string { return fmt.Sprintf("commit %s, %s", n.commit, n.place) }
