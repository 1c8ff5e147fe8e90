package keyroom

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const wholeRoom = `{
  "room": "room-1",
  "origin": "example.org/ä",
  "socket": "socket",
  "state": "state",
  "passphrase_file": "passphrase",
  "allowed_uids": [],
  "recovery_key": "key",
  "issuers": [
    {"id": "users", "purposes": ["user"], "max_validity_days": 825, "max_list_days": 8},
    {"id": "servers", "purposes": ["server"], "max_validity_days": 397, "max_list_days": 8}
  ],
  "certificates_per_hour": 20,
  "certificates_per_day": 100
}
`

// TestConfigPointsAt: what is wrong is named by its key, with its line, its column and a caret below it.
func TestConfigPointsAt(t *testing.T) {
	whole := filepath.Join(t.TempDir(), "keyroom.json")
	if err := os.WriteFile(whole, []byte(wholeRoom), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadConfig(whole); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ old, new, key, place string }{
		"unknown member":     {`"state": "state"`, `"state": "state", "stat": 1`, "stat", "5:29"},
		"unknown below":      {`"id": "servers"`, `"id": "servers", "crl": []`, "issuers[1].crl", "11:30"},
		"other case":         {`"room": `, `"Room": `, "Room", "2:11"},
		"twice":              {`"socket": "socket"`, `"room": "x", "socket": "socket"`, "room", "4:11"},
		"twice below":        {`"purposes": ["user"]`, `"id": "x", "purposes": ["user"]`, "issuers[0].id", "10:27"},
		"empty":              {`"origin": "example.org/ä"`, `"origin": ""`, "origin", "3:13"},
		"missing":            {`"room": "room-1",`, ``, "room", ""},
		"behind a letter":    {`"example.org/ä",`, `"ä", "ü": 1,`, "ü", "3:23"},
		"purpose":            {`["server"]`, `["server", "smtp"]`, "issuers[1].purposes[1]", "11:46"},
		"issuer twice":       {`"servers"`, `"users"`, "issuers[1].id", "11:12"},
		"no validity":        {`"max_validity_days": 397, `, ``, "issuers[1]", "11:5"},
		"type":               {`"allowed_uids": []`, `"allowed_uids": "root"`, "allowed_uids", "7:19"},
		"type below":         {`"max_list_days": 8}` + "\n", `"max_list_days": "8"}` + "\n", "issuers[1].max_list_days", "11:90"},
		"comma":              {`"state": "state",`, `"state": "state"`, "", "6:3"},
		"not closed":         {"100\n}", "100", "", "15:1"},
		"something behind":   {"100\n}", "100\n} {}", "", ""},
		"nothing":            {wholeRoom, "", "", ""},
		"null":               {wholeRoom, "null", "room", ""},
		"a list":             {wholeRoom, "[]", "", ""},
		"hostile credential": {`"passphrase"`, `"credential:../x"`, "passphrase_file", "6:22"},
		"deep":               {`"allowed_uids": []`, `"allowed_uids": ` + strings.Repeat("[", 20_000), "", "7:10018"},
	} {
		path := filepath.Join(t.TempDir(), "keyroom.json")
		text := strings.Replace(wholeRoom, c.old, c.new, 1)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := LoadConfig(path)
		var p *Problem
		if !errors.Is(err, ErrConfig) || !errors.As(err, &p) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		place := ""
		if p.Line > 0 {
			place = fmt.Sprintf("%d:%d", p.Line, p.Column)
			line, caret, found := strings.Cut(p.Excerpt, "\n")
			if found && strings.Index(caret, "^") != strings.Index(line, "|")+1+p.Column {
				t.Errorf("%s:\n%s", name, p.Excerpt)
			}
		}
		if p.Key != c.key || place != c.place {
			t.Errorf("%s: %q at %q, want %q at %q\n%.400v", name, p.Key, place, c.key, c.place, err)
		}
	}
}
