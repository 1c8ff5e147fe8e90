package gitrepo

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

// commit is what is read of a commit object.
type commit struct {
	tree    plumbing.Hash
	parents []plumbing.Hash
	time    time.Time // the committer's
	message string
}

// parseCommit reads the headers it needs and passes over the others, among
// them continued ones (a signature's lines begin with a space).
func parseCommit(raw []byte) (commit, error) {
	head, message, _ := strings.Cut(string(raw), "\n\n")
	c := commit{message: message}
	lines := strings.Split(head, "\n")
	id, ok := strings.CutPrefix(lines[0], "tree ")
	if !ok || !isHash(id) {
		return commit{}, fmt.Errorf("%w: malformed tree line", ErrHostile)
	}
	c.tree = plumbing.NewHash(id)
	for _, line := range lines[1:] {
		key, value, _ := strings.Cut(line, " ")
		switch key {
		case "parent":
			if !isHash(value) {
				return commit{}, fmt.Errorf("%w: malformed parent line", ErrHostile)
			}
			c.parents = append(c.parents, plumbing.NewHash(value))
		case "committer":
			c.time = claimedTime(value)
		}
	}
	return c, nil
}

// claimedTime reads the time of a committer line; the zero time if there is none. git takes commits with
// times that nobody can read, so one push by anybody must not keep ours out or the history from being
// read.
func claimedTime(committer string) time.Time {
	when := strings.Fields(committer[strings.LastIndexByte(committer, '>')+1:])
	if len(when) == 0 {
		return time.Time{}
	}
	seconds, err := strconv.ParseInt(when[0], 10, 64)
	if err != nil || seconds < 0 || seconds > latestTime {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}

// latestTime is the last second of the year 9999.
const latestTime = 253402300799

func isHash(s string) bool {
	return len(s) == 40 && strings.Trim(s, "0123456789abcdef") == ""
}

// person is the author and committer of our commits.
type person struct{ name, email string }

func (p person) check() error {
	for _, s := range []string{p.name, p.email} {
		if strings.TrimSpace(s) == "" || strings.ContainsAny(s, "<>\n\r\x00") || !utf8.ValidString(s) {
			return fmt.Errorf("author %q <%s>: not a name and address for a commit", p.name, p.email)
		}
	}
	return nil
}

// signedCommit encodes a commit with an SSH signature in git's own namespace.
// The signature covers the object without its gpgsig header.
func signedCommit(c commit, by person, signer ssh.Signer) ([]byte, error) {
	message := strings.Trim(c.message, "\n") + "\n"
	if strings.TrimSpace(message) == "" || strings.ContainsRune(message, 0) || !utf8.ValidString(message) {
		return nil, errors.New("the commit message is empty or not text")
	}
	var head bytes.Buffer
	fmt.Fprintf(&head, "tree %s\n", c.tree)
	for _, parent := range c.parents {
		fmt.Fprintf(&head, "parent %s\n", parent)
	}
	// The offset is always UTC's: where this machine stands is nobody's business.
	who := fmt.Sprintf("%s <%s> %d +0000", by.name, by.email, c.time.Unix())
	fmt.Fprintf(&head, "author %s\ncommitter %s\n", who, who)

	signed := head.String() + "\n" + message
	sig, err := sshsig.Sign(strings.NewReader(signed), signer, sshsig.HashSHA512, "git")
	if err != nil {
		return nil, fmt.Errorf("signing the commit: %w", err)
	}
	armored := strings.TrimSpace(string(sshsig.Armor(sig)))
	fmt.Fprintf(&head, "gpgsig %s\n", strings.ReplaceAll(armored, "\n", "\n "))
	return []byte(head.String() + "\n" + message), nil
}
