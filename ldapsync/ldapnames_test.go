package ldapsync

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
)

// TestLDAPNames asks a directory for every letter that has a case or is composed, in each spelling that is a name.
// It may find less than the books take for one name; it must never find another's entry.
func TestLDAPNames(t *testing.T) {
	t.Parallel()
	s := newSlapd(t)
	var spelled []name.Name
	var ldif strings.Builder
	known := make(map[string]bool)
	for r := rune(0x41); r < 0x20000; r++ {
		composed := norm.NFD.String(string(r)) != string(r) && !unicode.In(r, unicode.Hangul, unicode.Han)
		if !unicode.IsLetter(r) || unicode.SimpleFold(r) == r && !composed && r != 'ı' && r != 'ß' {
			continue
		}
		n, err := name.Canonical(cert.User, fmt.Sprintf("%c%c1", r, r))
		if err != nil {
			continue
		}
		spelled = append(spelled, n)
		if !known[n.Key] {
			fmt.Fprintf(&ldif, "dn: uid=name-%d,ou=people,%s\nobjectClass: inetOrgPerson\ncn:: %s\nsn: x\n\n", len(known), base, base64.StdEncoding.EncodeToString([]byte(n.Text)))
		}
		known[n.Key] = true
	}
	s.modify(admin, ldif.String(), "-a")
	d := openLDAP(t, s.config())
	entries := make(map[string]string) // the key of each
	found := 0
	for _, n := range spelled {
		id, err := d.Find(context.Background(), cert.User, n)
		if errors.Is(err, ErrNoEntry) {
			continue
		}
		if err != nil {
			t.Errorf("%+q: %v", n.Text, err)
			continue
		}
		found++
		if was := entries[id]; was != "" && was != n.Key {
			t.Errorf("%+q finds the entry of %+q", n.Text, was)
		}
		entries[id] = n.Key
	}
	if len(known) < 1000 || len(entries) != len(known) || found < len(spelled)*2/3 {
		t.Errorf("%d spellings of %d names; %d found an entry, of %d", len(spelled), len(known), found, len(entries))
	}
}
