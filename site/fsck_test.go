package site_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/site"
)

// breakage is something done to an installation behind its back.
type breakage struct {
	name string
	do   func(t *testing.T, dir string)
	want []string // codes of the violations, all of them
}

// sql changes the store.
func sql(script string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		python(t, dir, script)
	}
}

// files changes files with a shell, which finds other installations at $night and $other.
func files(script string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		h := worlds(t)
		run(t, "sh", "-ec", `cd "$1"; night=$2 other=$3; `+script, "sh", dir, h.night, h.other)
	}
}

// pushed changes the repository as somebody who can push to it.
func pushed(script string) func(*testing.T, string) {
	return files(`git clone -q config.git work; cd work; git config user.name mallory; git config user.email mallory@example.net
` + script + `
git add -A; git commit -qm "one small change"; git push -q; cd ..; rm -rf work`)
}

func storeBreakages() []breakage {
	row := func(what string) func(*testing.T, string) {
		return sql(`assert c.execute("UPDATE certificate SET ` + what + ` WHERE cn = 'bob'").rowcount == 1`)
	}
	differs := []string{"store.row_differs"}
	return []breakage{
		{"a revoked row is live again", row("state = 'live', revoked_at = 0, reason = 0"), []string{"directory.drift", "store.row_differs"}},
		{"a revoked row looks abandoned", row("state = 'abandoned', der = NULL, revoked_at = 0, reason = 0"), differs},
		{"a done row is open again", sql(`c.execute("UPDATE certificate SET state = 'open', done = -1, der = NULL WHERE cn = 'alice'")`), differs},
		{"another reason", sql(`c.execute("UPDATE certificate SET reason = 5 WHERE cn = 'carol'")`), differs},
		{"another date", row("revoked_at = revoked_at + 1000000"), differs},
		{"another name to find it by", row("name = 'robert'"), differs},
		{"another common name", row("cn = 'robert'"), differs},
		{"another entry", row("entry = 'x'"), differs},
		{"another end", row("not_after = not_after - 1000000"), differs},
		{"another beginning", row("not_before = not_before - 1000000"), differs},
		{"other names", sql(`c.execute("UPDATE certificate SET sans = '{}' WHERE cn = 'www.example.org'")`), []string{"store.damaged", "store.row_differs"}},
		{"another caller", row("caller = 'mallory'"), differs},
		{"another leaf", row("done = done + 1"), differs},
		{"other secrets", row("sealed = x'00'"), differs},
		{"another certificate", sql(`c.execute("UPDATE certificate SET der = (SELECT der FROM certificate WHERE cn = 'www.example.org') WHERE cn = 'alice'")`),
			[]string{"directory.drift", "store.row_differs"}},
		{"a row is gone", sql(`c.execute("DELETE FROM certificate WHERE cn = 'carol'")`), []string{"store.row_missing"}},
		{"a row too many", sql(`
c.execute("CREATE TEMP TABLE one AS SELECT * FROM certificate WHERE cn = 'bob'")
c.execute("UPDATE one SET serial = '7f' || substr(serial, 3), intent = 0, cn = 'eve', name = 'eve'")
c.execute("INSERT INTO certificate SELECT * FROM one")`), []string{"store.row_unknown"}},
		{"a row is another's", row("serial = '7f' || substr(serial, 3)"), []string{"store.row_missing", "store.row_unknown"}},
		{"a request id is free again", sql(`c.execute("DELETE FROM request WHERE id = 'issue-alice'")`), []string{"store.request_differs"}},
		{"a request id is bound to something else", sql(`c.execute("UPDATE request SET body_sha256 = 'x' WHERE id = 'revoke-bob-superseded'")`),
			[]string{"store.request_differs"}},
		{"another list", sql(`c.execute("UPDATE list SET der = x'3000' WHERE issuer = 'users'")`), []string{"store.list_differs"}},
		{"an older list", func(t *testing.T, dir string) {
			t.Helper()
			python(t, dir, `
c.execute("ATTACH ? AS night", [sys.argv[2] + "/state/store.db"])
c.execute("REPLACE INTO main.list SELECT * FROM night.list WHERE issuer = 'users'")`, worlds(t).night)
		}, []string{"store.list_differs"}},
		{"no list", sql(`c.execute("DELETE FROM list WHERE issuer = 'servers'")`), []string{"store.list_differs"}},
		{"a list that does not grow old", sql(`c.execute("UPDATE list SET next_update = next_update + 1000000")`), []string{"store.list_differs"}},
		{"a list said to be published", sql(`c.execute("UPDATE list SET published_number = '1' WHERE issuer = 'users'")`), []string{"store.list_differs"}},
		{"a table is gone", sql(`c.execute("DROP TABLE request")`), []string{"store.damaged"}},
		{"a page of zeros", sql(`
page, = c.execute("SELECT rootpage FROM sqlite_master WHERE name = 'certificate'").fetchone()
c.close()
with open(dir + "/state/store.db", "r+b") as f:
    f.seek((page - 1) * 4096)
    f.write(bytes(4096))`), []string{"store.damaged"}},
		{"a page of an index", sql(`
page, = c.execute("SELECT rootpage FROM sqlite_master WHERE name = 'certificate_name'").fetchone()
c.close()
with open(dir + "/state/store.db", "r+b") as f:
    f.seek((page - 1) * 4096)
    f.write(bytes(4096))`), []string{"store.damaged"}},
		{"half a file", files(`truncate -s $(($(stat -c %s state/store.db) * 2 / 5)) state/store.db`), []string{"store.unreadable"}},
		{"another kind of file", files(`head -c 100000 /dev/urandom > state/store.db`), []string{"store.unreadable"}},
		{"an empty file", files(`: > state/store.db`), []string{"store.unreadable"}},
		{"no file", files(`rm state/store.db`), []string{"store.unreadable"}},
		{"another installation's", files(`cp "$other"/state/store.db state/`), []string{"log.key"}},
	}
}

func logBreakages() []breakage {
	return []breakage{
		{"a leaf is altered", sql(`
i = intent("carol")
c.execute("UPDATE leaf SET leaf = ? WHERE position = ?", [leaves()[i].replace(b'"cn":"carol"', b'"cn":"cahol"'), i])`),
			[]string{"log.leaf.hash", "store.damaged"}},
		{"a leaf has another spelling", sql(`
c.execute("UPDATE leaf SET leaf = ? WHERE position = 3", [leaves()[3].replace(b'{"v":1,', b'{"v": 1,')])`),
			[]string{"log.leaf.hash", "store.damaged"}},
		{"a leaf is garbage", sql(`c.execute("UPDATE leaf SET leaf = x'ff' WHERE position = 20")`), []string{"log.leaf.hash", "store.damaged"}},
		{"a leaf is gone", sql(`c.execute("DELETE FROM leaf WHERE position = 10")`), []string{"log.leaf.missing", "store.damaged"}},
		{"a node is altered", sql(`c.execute("UPDATE node SET hash = zeroblob(32) WHERE position = 12")`), []string{"store.damaged"}},
		{"the last node is altered", sql(`c.execute("UPDATE node SET hash = zeroblob(32) WHERE position = (SELECT max(position) FROM node)")`),
			[]string{"log.leaf.hash", "store.damaged"}},
		{"two leaves changed places", sql(`
l = leaves()
for i, j in (5, 6), (6, 5): c.execute("UPDATE leaf SET leaf = ? WHERE position = ?", [l[j], i])`), []string{"log.leaf.hash", "store.damaged"}},
		{"no leaves", sql(`c.execute("PRAGMA foreign_keys=OFF"); c.execute("DELETE FROM leaf"); c.execute("DELETE FROM node")`),
			[]string{"log.first", "store.damaged"}},
		{"another history", sql(`
l = leaves()
i = intent("carol")
l[i] = l[i].replace(b'"cn":"carol"', b'"cn":"cahol"')
c.execute("UPDATE leaf SET leaf = ? WHERE position = ?", [l[i], i]); rebuild(l)`), []string{"log.checkpoint.root"}},
		{"the end is cut off, which git has seen", sql(`cut(index("crl.signed"))`), []string{"log.short"}},
		{"the end is cut off, which only the books have seen", sql(`cut(index("crl.published"))`), []string{"store.list_differs"}},
		{"a serial number is used twice", sql(`
l = leaves()
first, last = intent("bob"), intent("carol")
serial = json.loads(l[first])["event"]["serial"].encode()
l[last] = l[last].replace(json.loads(l[last])["event"]["serial"].encode(), serial)
c.execute("UPDATE leaf SET leaf = ? WHERE position = ?", [l[last], last]); rebuild(l)`), []string{"log.issue.serial_reused"}},
		{"an old store", files(`rm state/store.db*; cp "$night"/state/store.db state/`), []string{"log.short"}},
	}
}

// orphaned has nobody look at git: what then tells of it is the key room.
func orphaned(do func(*testing.T, string)) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		files(`git clone -q config.git work; cd work; git checkout -q --orphan new; git rm -rq --cached .; rm -rf pki
git -c user.name=m -c user.email=m commit -q --allow-empty -m empty; git push -q origin new; git -C ../config.git update-ref refs/heads/main new; git -C ../config.git update-ref -d refs/heads/new; cd ..; rm -rf work`)(t, dir)
		do(t, dir)
	}
}

func roomBreakages() []breakage {
	const emptied = "git.bundle git.checkpoint git.file git.list"
	return []breakage{
		{"the end of the log is cut off, and git is emptied", orphaned(sql(`cut(intent("carol"))`)), codesIn("store.behind store.list_differs store.row_differs " + emptied)},
		{"the log is another history, and git is emptied", orphaned(sql(`
l = leaves()
i = index("request.planned") if b"request.planned" in b"".join(l) else index("service.stopped", 0)
assert l[i].count(b'"kind":"daemon"') == 1
l[i] = l[i].replace(b'"kind":"daemon"', b'"kind":"operator"')
c.execute("UPDATE leaf SET leaf = ? WHERE position = ?", [l[i], i]); rebuild(l)`)), codesIn("room.fork " + emptied)},
		{"an old key room", files(`rm -r keyroom; cp -a "$night"/keyroom .`), codesIn("room.behind")},
		{"a key room that forgot its last records", func(t *testing.T, dir string) {
			t.Helper()
			python(t, dir, cutJournal, "3")
		}, codesIn("room.behind")},
		{"a key room that forgot its last record", func(t *testing.T, dir string) {
			t.Helper()
			python(t, dir, cutJournal, "1")
		}, codesIn("room.behind")},
		{"another installation's key room", files(`rm -r keyroom keyroom.json; cp -a "$other"/keyroom "$other"/keyroom.json .; chmod u+w secrets/*; cp "$other"/secrets/keyroom.passphrase secrets/`),
			codesIn("room.other")},
	}
}

func codesIn(words string) []string {
	all := strings.Fields(words)
	slices.Sort(all)
	return all
}

// cutJournal takes the last records off the key room's journal: the length of each body stands in its
// first four octets, after which come four of a check and 32 of a hash.
const cutJournal = `
path = dir + "/keyroom/journal"
data = open(path, "rb").read()
ends = [0]
while ends[-1] < len(data):
    ends.append(ends[-1] + 40 + int.from_bytes(data[ends[-1]:ends[-1] + 4], "big"))
assert ends[-1] == len(data)
os.truncate(path, ends[-1 - int(sys.argv[2])])`

func directoryBreakages() []breakage {
	ldif := func(script string) func(*testing.T, string) {
		return sql(`
path = dir + "/directory.ldif"
text = open(path).read()
old = text
` + script + `
assert text != old
open(path, "w").write(text)`)
	}
	const block = `
blocks = text.replace("\n ", "").split("\n\n")
at = [i for i, b in enumerate(blocks) if b.startswith("dn: cn=alice,")][0]
`
	const joined = `
text = "\n\n".join(blocks)`
	drift := []string{"directory.drift"}
	return []breakage{
		{"our value is gone", ldif(block + `blocks[at] = "\n".join(l for l in blocks[at].split("\n") if not l.startswith("userCertificate"))` + joined), drift},
		{"our value is altered", ldif(block + `blocks[at] = blocks[at].replace("userCertificate;binary:: MII", "userCertificate;binary:: MIJ")` + joined), drift},
		{"an entry is gone", ldif(block + `del blocks[at]` + joined), drift},
		{"a foreign value", ldif(block + `blocks[at] += "\nuserCertificate;binary:: MAA=\ndescription: hers"` + joined), nil},
		{"a revoked value is back", ldif(`
import base64
der = base64.b64encode(c.execute("SELECT der FROM certificate WHERE cn = 'bob'").fetchone()[0]).decode()` + strings.Replace(block, "alice", "bob", 1) + `
blocks[at] += "\nuserCertificate;binary:: " + der` + joined), drift},
		{"the file is gone", files(`rm directory.ldif`), []string{"directory.unreadable"}},
		{"the file is garbage", files(`head -c 1000 /dev/urandom > directory.ldif`), []string{"directory.unreadable"}},
		{"the file is empty", files(`: > directory.ldif`), drift},
	}
}

func gitBreakages() []breakage {
	// nightly has the lists of the night in the worktree nightly.
	const nightly = `git clone -q "$night"/config.git ../nightly; cp -r ../nightly/pki ../nightly.pki; rm -rf ../nightly
`
	const done = `
rm -rf ../nightly.pki`
	return []breakage{
		{"an older list", pushed(nightly + `cp ../nightly.pki/users.crl pki/` + done), codesIn("git.list_older git.entry git.bundle git.file")},
		{"everything older", pushed(nightly + `rm -r pki; cp -r ../nightly.pki pki` + done), codesIn("git.list_older git.entry")},
		{"an older list in the bundle", pushed(nightly + `cp ../nightly.pki/bundle.crl.pem pki/` + done), codesIn("git.bundle")},
		{"an older list in PEM", pushed(nightly + `cp ../nightly.pki/users.crl.pem pki/` + done), codesIn("git.file")},
		{"an older list for OpenSSL", pushed(nightly + `cp ../nightly.pki/rehash/* pki/rehash/` + done), codesIn("git.file")},
		{"garbage", pushed(`echo nothing > pki/users.crl`), codesIn("git.list")},
		{"one bit", pushed(`python3 -c '
d = bytearray(open("pki/users.crl", "rb").read()); d[-9] ^= 1; open("pki/users.crl", "wb").write(d)'`), codesIn("git.list")},
		{"another CA's list", pushed(`openssl req -x509 -newkey ed25519 -nodes -keyout ../k -out ../c -subj "$(openssl crl -inform DER -in pki/users.crl -noout -issuer -nameopt compat | sed 's/issuer=//')" -days 2 2>/dev/null
: > ../index; printf '[ca]\ndefault_ca=d\n[d]\ndatabase=../index\ndefault_md=default\ncrlnumber=../n\n' > ../cnf; echo 99 > ../n
openssl ca -gencrl -config ../cnf -keyfile ../k -cert ../c -crldays 3 -out ../l 2>/dev/null; openssl crl -in ../l -outform DER -out pki/users.crl
rm ../k ../c ../index* ../cnf ../n* ../l`), codesIn("git.list")},
		{"another issuer's list", pushed(`cp pki/servers.crl pki/users.crl`), codesIn("git.list")},
		{"a list is gone", pushed(`rm pki/users.crl`), codesIn("git.list")},
		{"the root's list is gone", pushed(`rm pki/root.crl`), codesIn("git.list")},
		{"the folder is gone", pushed(`git rm -rq pki; echo x > x`), codesIn("git.list git.file git.bundle git.checkpoint")},
		{"the folder is a link", pushed(`git rm -rq pki; ln -s /etc pki`), codesIn("git.unreadable")},
		{"the bundle's end is cut", pushed(`truncate -s -20 pki/bundle.crl.pem`), codesIn("git.bundle")},
		{"the bundle's last list is cut", pushed(`python3 -c '
t = open("pki/bundle.crl.pem").read(); open("pki/bundle.crl.pem", "w").write(t[:t.rindex("-----BEGIN")])'`), codesIn("git.bundle")},
		{"another CA certificate", pushed(`cp pki/ca/servers.pem pki/ca/users.pem`), codesIn("git.file")},
		{"no chain", pushed(`rm pki/ca/chain.pem`), codesIn("git.file")},
		{"another installation's checkpoint", pushed(`git clone -q "$other"/config.git ../o; cp ../o/pki/checkpoint pki/; rm -rf ../o`), codesIn("git.checkpoint")},
		{"an older checkpoint", pushed(nightly + `cp ../nightly.pki/checkpoint pki/` + done), codesIn("git.checkpoint")},
		{"no checkpoint", pushed(`rm pki/checkpoint`), codesIn("git.checkpoint")},
		{"others' files, also among ours", pushed(`mkdir site; echo x > site/x; echo y > pki/y; echo z >> pki/README.md; ln -s /etc pki/rehash/l`), nil},
		{"others' vandalism that was put right", pushed(`cp pki/users.crl ..; echo x > pki/users.crl; git commit -qam vandal; cp ../users.crl pki/; rm ../users.crl`), nil},
		{"no branch", files(`git -C config.git update-ref -d refs/heads/main`), codesIn("git.list git.file git.bundle git.checkpoint")},
		{"an object is gone", files(`rm "config.git/objects/$(git -C config.git rev-parse main | sed 's,..,&/,')"`), codesIn("git.unreadable")},
		{"no repository", files(`rm -r config.git`), codesIn("git.unreadable")},
	}
}

// TestFsckNamesIt breaks one thing at a time with a tool that is not ours, and reads what fsck says of
// it. Of each class one is asked of the command as well. Nothing is changed by looking.
func TestFsckNamesIt(t *testing.T) {
	t.Parallel()
	for class, breakages := range map[string][]breakage{
		"store": storeBreakages(), "log": logBreakages(), "room": roomBreakages(), "directory": directoryBreakages(), "git": gitBreakages(),
	} {
		for i, b := range breakages {
			t.Run(class+"/"+b.name, func(t *testing.T) {
				t.Parallel()
				dir := copyOf(t, worlds(t).day)
				b.do(t, dir)
				keyroom := room(t, dir)
				before := checksums(t, dir)
				report, err := site.Fsck(t.Context(), config(t, dir))
				if err != nil {
					t.Fatal(err)
				}
				if got := codes(t, report); !slices.Equal(got, append([]string{}, b.want...)) {
					t.Errorf("got  %q\nwant %q\n%s", got, b.want, tell(report))
				}
				if i == 0 {
					if code, got := fsckCommand(t, dir); code != 4 || !slices.Equal(got, b.want) {
						t.Errorf("the command: exit code %d, %q", code, got)
					}
				}
				if after := checksums(t, dir); !maps.Equal(after, before) {
					t.Errorf("fsck changed something:\n%v\n%v", before, after)
				}
				keyroom.kill()
			})
		}
	}
}

func tell(report site.FsckReport) string {
	var text strings.Builder
	for _, f := range report.Findings {
		text.WriteString(f.Code + ": " + f.Subject + ": " + f.Reason + "\n")
	}
	return text.String()
}

// TestFsckClean looks at an installation that nobody broke.
func TestFsckClean(t *testing.T) {
	t.Parallel()
	dir := copyOf(t, worlds(t).day)
	room(t, dir)
	before := checksums(t, dir)
	if report := clean(t, dir); report.Certificates != 7 || report.Revoked != 3 || report.Checkpoints == 0 {
		t.Errorf("%+v", report)
	}
	if code, got := fsckCommand(t, dir); code != 0 || len(got) > 0 {
		t.Errorf("the command: exit code %d, %q", code, got)
	}
	if code, stdout, _ := chancery(t, "fsck", dir); code != 0 || !strings.HasSuffix(stdout, "\nclean\n") {
		t.Errorf("the command: exit code %d\n%s", code, stdout)
	}
	if after := checksums(t, dir); !maps.Equal(after, before) {
		t.Errorf("fsck changed something:\n%v\n%v", before, after)
	}
}

// TestFsckTellsWhatIsOwed: what is on its way is no violation.
func TestFsckTellsWhatIsOwed(t *testing.T) {
	t.Parallel()
	dir := copyOf(t, worlds(t).day)
	python(t, dir, `
c.executemany("INSERT INTO debt (topic, name, generation, oldest, since, next_at, last_error) VALUES (?, ?, 30, 30, 1, 1, 'it is down')",
    [("directory", "user/alice"), ("crl", "users")])
c.execute("UPDATE list SET published_number = '1' WHERE issuer = 'users'")
path = dir + "/directory.ldif"
text = open(path).read()
open(path, "w").write(text[:text.index("\ndn: cn=alice,")] + "\n")`)
	room(t, dir)
	report, err := site.Fsck(t.Context(), config(t, dir))
	if err != nil || report.Violations() > 0 && !onlyAbout(report, "www.example.org") {
		t.Errorf("%v\n%s", err, tell(report))
	}
	for _, place := range []string{"directory user/alice", "crl users"} {
		if !slices.ContainsFunc(report.Findings, func(f site.Finding) bool {
			return f.Pending && f.Code == "owed" && f.Subject == place && strings.Contains(f.Reason, "it is down")
		}) {
			t.Errorf("%s is not told\n%s", place, tell(report))
		}
	}
}

func onlyAbout(report site.FsckReport, name string) bool {
	return !slices.ContainsFunc(report.Findings, func(f site.Finding) bool { return !f.Pending && !strings.Contains(f.Subject, name) })
}

// TestFsckTakesTheKeyRoom: without it, or with one that cannot start, fsck says so and nothing else.
func TestFsckTakesTheKeyRoom(t *testing.T) {
	t.Parallel()
	h := worlds(t)
	dir := copyOf(t, h.day)
	if _, err := site.Fsck(t.Context(), config(t, dir)); !errors.Is(err, signer.ErrUnreachable) {
		t.Errorf("%v", err)
	}
	if code, stdout, stderr := chancery(t, "fsck", dir, "-o", "json"); code != 3 || stdout != "" || !strings.Contains(stderr, "start it first: systemctl start chancery-keyroom, or chancery-keyroom --config "+dir+"/keyroom.json") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	journal := filepath.Join(dir, "keyroom", "journal")
	good, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(filepath.Join(h.other, "keyroom", "journal"))
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	for name, content := range map[string][]byte{"another room's journal": other, "one bit of it": flipped, "an empty one": {}} {
		if err := os.WriteFile(journal, content, 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := launch(`"msg":"serving"`, nil, filepath.Join(bin(t), "chancery-keyroom"), "--config", filepath.Join(dir, "keyroom.json"))
		if err == nil {
			p.kill()
			t.Errorf("%s: the key room starts", name)
		} else if !strings.Contains(err.Error(), "exit code 1") || !strings.Contains(err.Error(), "journal") {
			t.Errorf("%s: %v", name, err)
		}
		if code, _, _ := chancery(t, "fsck", dir); code != 3 {
			t.Errorf("%s: exit code %d", name, code)
		}
	}
}

// TestFsckIsCutShort: a check that could not look finds nothing.
func TestFsckIsCutShort(t *testing.T) {
	t.Parallel()
	dir := copyOf(t, worlds(t).day)
	room(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if report, err := site.Fsck(ctx, config(t, dir)); err == nil || report.Violations() > 0 {
		t.Errorf("%v %+v", err, report)
	}
}

// TestFsckBesideTheService looks while calls are made.
func TestFsckBesideTheService(t *testing.T) {
	t.Parallel()
	dir := copyOf(t, worlds(t).night)
	serve(t, dir, func() error {
		done := make(chan error, 1)
		go func() {
			var calls []call
			for _, name := range []string{"dave", "erin", "frank", "grace"} {
				calls = append(calls, issue("user", name), revoke(name, "superseded"))
			}
			done <- callAll(dir, calls...)
		}()
		for {
			report, err := site.Fsck(t.Context(), config(t, dir))
			if err != nil || report.Violations() > 0 {
				t.Errorf("%v\n%s", err, tell(report))
			}
			select {
			case err := <-done:
				return err
			default:
			}
		}
	})
	room(t, dir)
	clean(t, dir)
}
