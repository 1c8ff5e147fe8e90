package audit

import (
	"bytes"
	"crypto/rand"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

const origin = "example.org/chancery/0123456789ab"

func logKey(t *testing.T, name string) (note.Signer, string) {
	t.Helper()
	skey, vkey, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	return signer, vkey
}

// TestCheckpoint signs a checkpoint and reads it back, and then whatever is not one of this log.
func TestCheckpoint(t *testing.T) {
	key, vkey := logKey(t, origin)
	tree := new(Tree)
	for i := range int64(7) {
		tree.Append(leafAt(i))
	}
	want := Checkpoint{origin, 7, tree.Root()}
	signed, err := want.Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OpenCheckpoint(signed, vkey); err != nil || got != want {
		t.Errorf("read back as %+v, %v", got, err)
	}
	lines := strings.Split(string(signed), "\n")
	if len(lines) != 6 || lines[0] != origin || lines[1] != "7" || lines[3] != "" || !strings.HasPrefix(lines[4], "— "+origin+" ") {
		t.Errorf("not a C2SP checkpoint:\n%s", signed)
	}
	fails := func(what string, signed []byte, vkey string) {
		t.Helper()
		if c, err := OpenCheckpoint(signed, vkey); err == nil {
			t.Errorf("%s: read as %+v\n%s", what, c, signed)
		}
	}
	_, otherKey := logKey(t, origin)
	fails("another key of the same name", signed, otherKey)
	foreign, foreignKey := logKey(t, "example.net/chancery/1")
	fails("a key of another name", signed, foreignKey)
	crossed, err := want.Sign(foreign)
	if err != nil {
		t.Fatal(err)
	}
	fails("our origin under another log's key", crossed, foreignKey)
	fails("our origin under another log's key, read with ours", crossed, vkey)
	fails("no key", signed, "")
	fails("nothing", nil, vkey)
	for i := range signed {
		mangled := bytes.Clone(signed)
		mangled[i] ^= 1
		if c, err := OpenCheckpoint(mangled, vkey); err == nil && c != want {
			t.Errorf("octet %d: read as %+v", i, c)
		}
		fails("cut", signed[:i], vkey)
	}
	extra, err := note.Sign(&note.Note{Text: want.text()}, key, foreign)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OpenCheckpoint(extra, vkey); err != nil || got != want {
		t.Errorf("a witness's signature is in the way: %+v, %v", got, err)
	}
}

// TestBadCheckpoints signs texts that are no checkpoints.
func TestBadCheckpoints(t *testing.T) {
	key, vkey := logKey(t, origin)
	good := Checkpoint{origin, 7, new(Tree).Root()}.text()
	replace := func(from, to string) string { return strings.Replace(good, from, to, 1) }
	root := strings.Split(good, "\n")[2]
	for name, text := range map[string]string{
		"one line":           "hello\n",
		"a line more":        good + "more\n",
		"an empty line more": good + "\n",
		"a negative size":    replace("\n7\n", "\n-7\n"),
		"a signed size":      replace("\n7\n", "\n+7\n"),
		"a leading zero":     replace("\n7\n", "\n07\n"),
		"a hexadecimal size": replace("\n7\n", "\n0x7\n"),
		"no size":            replace("\n7\n", "\n\n"),
		"a huge size":        replace("\n7\n", "\n9223372036854775808\n"),
		"a space":            replace("\n7\n", "\n7 \n"),
		"another origin":     replace(origin, origin+"x"),
		"no origin":          replace(origin, ""),
		"a root in hex":      replace(root, strings.Repeat("ab", 32)),
		"a shorter root":     replace(root, "AAAA"),
		"loose base64":       replace(root, root[:42]+"V="),
		"carriage returns":   strings.ReplaceAll(good, "\n", "\r\n"),
	} {
		signed, err := note.Sign(&note.Note{Text: text}, key)
		if err != nil {
			t.Fatal(err)
		}
		if c, err := OpenCheckpoint(signed, vkey); err == nil {
			t.Errorf("%s: read as %+v", name, c)
		}
	}
}
