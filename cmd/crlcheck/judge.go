package main

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/crl/list"
)

// The codes of a verdict, beside those of package list.
const (
	codeAccepted  = "accepted"
	codeFirst     = "accepted.first"     // nothing is installed yet
	codeUnchanged = "accepted.unchanged" // octet by octet what is installed

	codeSameNumber = "list.same_number"   // two different lists with one number
	codeInstalled  = "installed.unusable" // what is installed is no file of lists of the chain

	codeUnreadable = "file.unreadable"
	codeTrust      = "trust.unusable"
)

// verdict is what is printed.
type verdict struct {
	Accepted bool     `json:"accepted"`
	Code     string   `json:"code"`
	Reason   string   `json:"reason"`
	Lists    []row    `json:"lists"`
	Warnings []string `json:"warnings"`

	exit int
}

// row is one list of an accepted file.
type row struct {
	Issuer     string    `json:"issuer"`
	Number     string    `json:"number"` // decimal
	Installed  string    `json:"installed_number,omitempty"`
	ThisUpdate time.Time `json:"this_update"`
	NextUpdate time.Time `json:"next_update"`
	Entries    int       `json:"entries"`
	Left       int       `json:"left"` // entries of the installed list that are gone
}

// decline gives the verdict on a file that is refused, or that could not be judged.
func decline(exit int, code string, err error) *verdict {
	return &verdict{Code: code, Reason: err.Error(), Lists: []row{}, Warnings: []string{}, exit: exit}
}

// refuseList is for what package list says.
func refuseList(err error) *verdict {
	var f *list.Fault
	if errors.As(err, &f) {
		return decline(refused, f.Code, errors.New(f.Reason))
	}
	return decline(refused, list.Malformed, err)
}

// String gives one line: what is quoted from files has no control characters.
func (v *verdict) String() string {
	switch v.exit {
	case accepted:
		return "accepted: " + v.Reason
	case refused:
		return "refused " + v.Code + ": " + v.Reason
	}
	return "not judged " + v.Code + ": " + v.Reason
}

// bundled gives a single list in DER the form of a file of lists. A bundle begins with a dash.
func bundled(file []byte) []byte {
	if len(file) > 0 && file[0] == 0x30 && len(file) <= list.MaxSize {
		return list.EncodePEM(file)
	}
	return file
}

// compare judges a file by itself, and then as the one that replaces old.
func compare(file, old []byte, chain []*x509.Certificate, now time.Time, installed bool) *verdict {
	lists, err := list.ReadBundle(file, chain, now)
	if err != nil {
		return refuseList(err)
	}
	v := &verdict{Accepted: true, Code: codeAccepted, Lists: []row{}, Warnings: []string{}}
	var words []string
	for _, l := range lists {
		v.Lists = append(v.Lists, row{
			Issuer: l.Issuer, Number: l.Number.String(), ThisUpdate: l.ThisUpdate, NextUpdate: l.NextUpdate, Entries: len(l.Entries),
		})
		words = append(words, fmt.Sprintf("%q number %s with %d revoked", l.Issuer, l.Number, len(l.Entries)))
		if left := l.NextUpdate.Sub(now); left < l.NextUpdate.Sub(l.ThisUpdate)/4 {
			v.warn("the list of %q expires at %s and has not been renewed", l.Issuer, l.NextUpdate.Format(time.RFC3339))
		}
	}
	v.Reason = strings.Join(words, ", ")
	switch {
	case !installed:
		v.Code, v.Reason = codeFirst, "nothing to compare with: "+v.Reason
		return v
	case bytes.Equal(file, old):
		v.Code, v.Reason = codeUnchanged, "unchanged: "+v.Reason
		for i := range v.Lists {
			v.Lists[i].Installed = v.Lists[i].Number
		}
		return v
	}
	last, err := readInstalled(old, chain)
	if err != nil {
		return decline(refused, codeInstalled, fmt.Errorf("what is installed cannot be compared with: %w; look at it, and remove it to begin anew", err))
	}
	for i, l := range lists {
		was := last[string(l.RawIssuer)]
		if was == nil {
			v.warn("the installed file has no list of %q", l.Issuer)
			continue
		}
		if err := replaces(l, was); err != nil {
			return refuseList(err)
		}
		v.Lists[i].Installed = was.Number.String()
		if v.Lists[i].Left = left(l, was); v.Lists[i].Left > 0 {
			v.warn("%d entries have left the list of %q: old enough to have expired, or on hold and released", v.Lists[i].Left, l.Issuer)
		}
	}
	return v
}

func (v *verdict) warn(format string, args ...any) {
	v.Warnings = append(v.Warnings, fmt.Sprintf(format, args...))
}

// readInstalled gives the lists of a file that was accepted once, by issuer. They may have expired. A
// list of a CA that the chain no longer has says nothing about the others.
func readInstalled(old []byte, chain []*x509.Certificate) (map[string]*list.List, error) {
	lists, err := list.ParseBundle(old)
	if err != nil {
		return nil, err
	}
	found := make(map[string]*list.List)
	for _, l := range lists {
		for _, ca := range chain {
			if !bytes.Equal(l.RawIssuer, ca.RawSubject) {
				continue
			}
			if err := l.Verify(ca); err != nil {
				return nil, err
			}
			found[string(l.RawIssuer)] = l
		}
	}
	return found, nil
}

// replaces judges next as the list that a host installs in place of last.
//
// Why an entry left is not known here: certificates' ends and releases are in the CA's books. But only
// a certificate that has not expired is revoked, so its end lies after the entry's date, and the entry
// stays for list.KeepAfterExpiry more. What leaves before that has been left out.
func replaces(next, last *list.List) error {
	if next.Number.Cmp(last.Number) == 0 {
		if bytes.Equal(next.Raw, last.Raw) {
			return nil
		}
		return &list.Fault{Code: codeSameNumber, Reason: fmt.Sprintf("%q has signed two different lists with the number %s", next.Issuer, next.Number)}
	}
	// The host may have slept through the list that held the entry after the certificate's end.
	held := *last
	held.ThisUpdate = next.ThisUpdate
	earliestEnd := func(serial cert.Serial) (time.Time, bool) {
		e, ok := last.Find(serial)
		return e.RevokedAt, ok
	}
	mayHaveBeenReleased := func(list.Entry) bool { return true }
	return list.Follows(next, &held, earliestEnd, mayHaveBeenReleased)
}

// left counts the entries of last that next does not have.
func left(next, last *list.List) int {
	n := 0
	for _, e := range last.Entries {
		if _, still := next.Find(e.Serial); !still {
			n++
		}
	}
	return n
}
