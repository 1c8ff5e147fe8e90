package ldapsync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
)

func TestEntriesAreMadeAndReadByOthers(t *testing.T) {
	d, path := emptyFile(t)
	person := find(t, d, cert.User, "Alice O'Hara")
	host := find(t, d, cert.Server, "www.example.org")
	if again := find(t, d, cert.User, "alice o'hara"); again.Entry != person.Entry {
		t.Errorf("a missing entry is promised as %s and as %s", person.Entry, again.Entry)
	}
	before := readFile(t, path)
	if _, err := d.Read(context.Background(), person); !errors.Is(err, ErrNoEntry) {
		t.Errorf("reading an entry that is not made yet: %v", err)
	}
	apply(t, d, person, nil, [][]byte{[]byte("gone")})
	if !bytes.Equal(readFile(t, path), before) {
		t.Error("looking and removing wrote to the file")
	}

	one, two := selfSigned(t, "alice", 1, time.Now()), selfSigned(t, "alice", 2, time.Now())
	apply(t, d, person, [][]byte{one, two}, nil)
	apply(t, d, host, [][]byte{one}, nil)
	if again := find(t, d, cert.User, "alice o'hara"); again.Entry != person.Entry {
		t.Errorf("promised as %s, made as %s", person.Entry, again.Entry)
	}
	e := readEntry(t, path, "cn=Alice O'Hara,ou=people,"+base)
	if got := e.values(published); len(got) != 2 || !bytes.Equal(got[0], one) || !bytes.Equal(got[1], two) {
		t.Errorf("python3 reads %d values", len(got))
	}
	if got := e.values("entryUUID"); len(got) != 1 || string(got[0]) != person.Entry {
		t.Errorf("entryUUID %q, want %s", got, person.Entry)
	}
	if got := readEntry(t, path, "cn=www.example.org,ou=hosts,"+base).values("objectClass"); fmt.Sprintf("%s", got) != "[device pkiUser]" {
		t.Errorf("classes of a host: %s", got)
	}
	checkOpenSSL(t, e.values(published)[1], "serial=02")
	for i, row := range bytes.Split(readFile(t, path), []byte("\n")) {
		if len(row) > foldAt {
			t.Errorf("line %d has %d characters", i+1, len(row))
		}
	}
}

// What others wrote stays byte for byte: the file without our lines is the file as it was.
func TestForeignContentStays(t *testing.T) {
	d, path, before := foreignFile(t)
	bob := find(t, d, cert.User, "bob builder")
	if bob.Entry != "11111111-2222-4333-8444-aaaaaaaaaaaa" {
		t.Errorf("bob is %s", bob.Entry)
	}
	ours := selfSigned(t, "bob", 7, time.Now())
	carol, www := find(t, d, cert.User, "carol"), find(t, d, cert.Server, "www.example.org")
	for range 2 { // the second time nothing is left to do
		for _, to := range []Target{bob, carol, www} {
			apply(t, d, to, [][]byte{ours}, nil)
		}
	}
	lines := string(writeLine(published, ours, "\n"))
	after := string(readFile(t, path))
	if n := strings.Count(after, lines); n != 3 {
		t.Fatalf("our value stands there %d times", n)
	}
	rest := strings.ReplaceAll(after, lines, "")
	if n := strings.Count(rest, "objectClass: pkiUser\n"); n != 2 {
		t.Errorf("pkiUser was added %d times, want once for the device and once for the person", n)
	}
	if rest = strings.ReplaceAll(rest, "objectClass: pkiUser\n", ""); rest != string(before) {
		t.Errorf("foreign content changed:\n%s", rest)
	}
	values, err := d.Read(context.Background(), bob)
	if err != nil || len(values) != 2 || string(values[0]) != "foreign" || !bytes.Equal(values[1], ours) {
		t.Errorf("bob holds %q, %v", values, err)
	}

	// Bytes that nearly are a value of his remove nothing.
	apply(t, d, bob, nil, [][]byte{ours[:len(ours)-1], []byte("foreig"), []byte("FOREIGN"), nil})
	if string(readFile(t, path)) != after {
		t.Error("other bytes removed a value")
	}
	for _, to := range []Target{bob, carol, www} {
		apply(t, d, to, nil, [][]byte{ours})
	}
	if strings.Contains(string(readFile(t, path)), strings.TrimSpace(lines)) {
		t.Error("our value is still there")
	}
	if values, err := d.Read(context.Background(), bob); err != nil || len(values) != 1 {
		t.Errorf("bob holds %q, %v", values, err)
	}

	// The file does not end in a line end; what is made behind it must not run into it.
	dave := find(t, d, cert.User, "dave")
	apply(t, d, dave, [][]byte{ours}, nil)
	reread, err := open(t, path).Read(context.Background(), dave)
	if err != nil || len(reread) != 1 || !bytes.Equal(reread[0], ours) {
		t.Errorf("dave holds %d values, %v", len(reread), err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestWhoIsMeant(t *testing.T) {
	d, path, before := foreignFile(t)
	ctx := context.Background()
	twice := mustName(t, cert.User, "twice")
	if _, err := d.Find(ctx, cert.User, twice); !errors.Is(err, ErrManyEntries) || !strings.Contains(err.Error(), "ou=staff") {
		t.Errorf("two entries of one name: %v", err)
	}
	if _, err := d.Find(ctx, cert.Caller, mustName(t, cert.Caller, "provisioning")); !errors.Is(err, ErrNoEntry) {
		t.Errorf("a caller: %v", err)
	}
	alice := find(t, d, cert.User, "alice")
	if alice.Entry != madeEntry(cert.User, alice.Name) {
		t.Error("alice of another subtree was taken for ours")
	}
	strict, err := OpenLDIF("ldif://"+path, false, base)
	if err != nil {
		t.Fatal(err)
	}
	defer strict.Close()
	if _, err := strict.Find(ctx, cert.User, alice.Name); !errors.Is(err, ErrNoEntry) {
		t.Errorf("nobody is made, and alice: %v", err)
	}
	if err := strict.Apply(ctx, alice, [][]byte{[]byte("x")}, nil); !errors.Is(err, ErrNoEntry) {
		t.Errorf("nobody is made, and writing to alice: %v", err)
	}
	// bob was deleted and made again: another entry, which may be another bob.
	bob := find(t, d, cert.User, "bob builder")
	bob.Entry = "99999999-2222-4333-8444-aaaaaaaaaaaa"
	if err := d.Apply(ctx, bob, [][]byte{[]byte("x")}, nil); !errors.Is(err, ErrNoEntry) {
		t.Errorf("an entry of another identity: %v", err)
	}
	bob.Entry = madeEntry(cert.User, bob.Name)
	if err := d.Apply(ctx, bob, [][]byte{[]byte("x")}, nil); !errors.Is(err, ErrNoEntry) {
		t.Errorf("an entry that somebody else made meanwhile: %v", err)
	}
	if !bytes.Equal(readFile(t, path), before) {
		t.Error("a refusal wrote to the file")
	}
}

// No name of the allow-list needs an escape; whoever widens the list must not get a second RDN.
func TestHostileNames(t *testing.T) {
	d, path := emptyFile(t)
	hostile := []string{
		"a,ou=hosts", "a+uid=root", `"quoted"`, "#1234", " leading", "trailing ", "  ", `back\slash`, `end\`, "semi;colon",
		"a<b>c", "a=b", ":colon", "<url", "Zoë", "line\nbreak: x", "dn: x", strings.Repeat("long ", 12) + "name", "\x7f", `\2c`,
	}
	der := []byte("certificate")
	for _, cn := range hostile {
		to := Target{cert.User, name.Name{Text: cn, Key: cn}, madeEntry(cert.User, name.Name{Key: cn})}
		apply(t, d, to, [][]byte{der}, nil)
		apply(t, d, to, [][]byte{der}, nil)
		if got, err := d.Read(context.Background(), to); err != nil || len(got) != 1 {
			t.Errorf("%q: %d values, %v", cn, len(got), err)
		}
	}
	entries := readBack(t, path)[3:]
	if len(entries) != len(hostile) {
		t.Fatalf("%d names made %d entries", len(hostile), len(entries))
	}
	for i, e := range entries {
		if got := e.values("cn"); len(got) != 1 || string(got[0]) != hostile[i] {
			t.Errorf("%q was written as %q", hostile[i], got)
		}
		where, err := parseDN(e.DN)
		if err != nil || len(where) != 4 || len(where[0]) != 1 || where[0][0].value != hostile[i] {
			t.Errorf("%q became %s, %v", hostile[i], e.DN, err)
		}
	}
	for _, cn := range []string{"\xff", ""} {
		to := Target{cert.User, name.Name{Text: cn, Key: cn}, madeEntry(cert.User, name.Name{Key: cn})}
		err := d.Apply(context.Background(), to, [][]byte{der}, nil)
		if !errors.Is(err, ErrRefused) {
			t.Errorf("%q: %v", cn, err)
		}
	}
}

func TestUnreadableFiles(t *testing.T) {
	intact := string(readFile(t, "testdata/foreign.ldif"))
	head := "dn: cn=a,ou=people,dc=example,dc=org\n"
	cases := map[string]string{
		"binary":          "\x00\x01\x02",
		"no dn":           "cn: a\n",
		"not a pair":      head + "nonsense\n",
		"two dns":         head + head,
		"change record":   head + "changetype: delete\n",
		"other version":   "version: 2\n\n" + head,
		"bad base64":      head + "cn:: !!!\n",
		"bad dn":          "dn: cn=a,,ou=people\n",
		"open escape":     "dn: cn=a\\,ou=people\\\n",
		"escapes no UTF8": "dn: cn=\\ff\n",
		"only a fold":     " cn: a\n",
		"bare return":     head + "cn: a\rb\n",
		"name at a URL":   head + "cn:< file:///etc/passwd\n",
		"two identities":  head + "entryUUID: a\nentryUUID: b\n",
		"byte order mark": "\xef\xbb\xbfversion: 1\n\n" + head,
		"merge conflict":  "<<<<<<< ours\n" + head,
	}
	for what, text := range cases {
		t.Run(what, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "directory.ldif")
			text := intact + "\n\n" + text
			writeFile(t, path, []byte(text))
			d := open(t, path)
			to := Target{cert.User, name.Name{Text: "alice", Key: "alice"}, madeEntry(cert.User, name.Name{Key: "alice"})}
			err := d.Apply(context.Background(), to, [][]byte{[]byte("x")}, nil)
			if err == nil || !strings.Contains(err.Error(), "at line ") || !strings.Contains(err.Error(), path) {
				t.Errorf("want an error that names file and line, not %v", err)
			}
			if _, err := d.Find(context.Background(), cert.User, to.Name); err == nil {
				t.Error("Find believes the file")
			}
			if string(readFile(t, path)) != text {
				t.Error("the file was written to")
			}
		})
	}
}

func TestMissingAndStrangeFiles(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), link); err != nil {
		t.Fatal(err)
	}
	large := filepath.Join(dir, "large")
	writeFile(t, large, nil)
	if err := os.Truncate(large, maxFile+1); err != nil {
		t.Fatal(err)
	}
	to := Target{cert.User, name.Name{Text: "alice", Key: "alice"}, madeEntry(cert.User, name.Name{Key: "alice"})}
	for _, path := range []string{filepath.Join(dir, "missing"), dir, pipe, link, large} {
		d := open(t, path)
		_, err := d.Find(context.Background(), cert.User, to.Name)
		if err == nil || errors.Is(err, ErrNoEntry) {
			t.Errorf("%s: found with %v", path, err)
		}
		if err := d.Apply(context.Background(), to, [][]byte{[]byte("x")}, nil); err == nil {
			t.Errorf("%s: written to", path)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Error("a missing file was made again")
	}
	bare := filepath.Join(dir, "bare.ldif") // without ou=people
	writeFile(t, bare, []byte("dn: dc=example,dc=org\nobjectClass: dcObject\n"))
	if err := open(t, bare).Apply(context.Background(), to, [][]byte{[]byte("x")}, nil); !errors.Is(err, ErrRefused) {
		t.Errorf("an entry without a place: %v", err)
	}
	for _, address := range []string{"", "ldif:x", "ldif://host/x", "ldap:///x", "ldif:///x?y", "/x"} {
		if _, err := OpenLDIF(address, true, base); err == nil {
			t.Errorf("%q is taken for an address", address)
		}
	}
	for _, wrong := range []string{"", "example.org", "dc=example,", "cn=a,dc=org"} {
		if err := WriteEmpty(filepath.Join(dir, "new"), wrong); err == nil {
			t.Errorf("%q is taken for a base", wrong)
		}
	}
	if err := WriteEmpty(bare, base); !errors.Is(err, os.ErrExist) {
		t.Errorf("writing over a file: %v", err)
	}
}

func TestWindowsLineEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "directory.ldif")
	before := strings.ReplaceAll(string(readFile(t, "testdata/foreign.ldif")), "\n", "\r\n")
	writeFile(t, path, []byte(before))
	d := open(t, path)
	ours := selfSigned(t, "bob", 7, time.Now())
	apply(t, d, find(t, d, cert.User, "bob builder"), [][]byte{ours}, nil)
	after := string(readFile(t, path))
	if rest := strings.Replace(after, string(writeLine(published, ours, "\r\n")), "", 1); rest != before {
		t.Errorf("foreign content changed:\n%q", rest)
	}
}

// Whatever is read is kept: the parts are the whole.
func FuzzBlock(f *testing.F) {
	foreign, err := os.ReadFile("testdata/foreign.ldif")
	if err != nil {
		f.Fatal(err)
	}
	for _, b := range bytes.Split(foreign, []byte("\n\n")) {
		f.Add(b)
	}
	f.Add([]byte("dn:\n"))
	f.Add([]byte("dn: cn=a\\2Cb+c=d\r\ncn:: YQ==\r\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := parseBlock(raw)
		if err != nil {
			return
		}
		if !bytes.Equal(b.bytes(), raw) {
			t.Fatalf("%q became %q", raw, b.bytes())
		}
		if where, err := parseDN(b.name); err == nil && len(where) > 0 {
			for _, a := range where[0] {
				again, err := parseDN("cn=" + escapeValue(a.value))
				if err != nil || len(again) != 1 || again[0][0].value != a.value {
					t.Fatalf("%q was read again as %v, %v", a.value, again, err)
				}
			}
		}
	})
}
