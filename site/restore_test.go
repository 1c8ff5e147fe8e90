package site_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"filippo.io/age"

	"github.com/chancery-ca/chancery/site"
	"github.com/chancery-ca/chancery/store"
)

// keys are those of one who may open backups.
func keys(t testing.TB) *age.X25519Identity {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return identity
}

func backupOf(t testing.TB, dir string, to age.Recipient) []byte {
	t.Helper()
	var out bytes.Buffer
	if _, err := (site.Backup{Config: config(t, dir), Recipients: []age.Recipient{to}}).Write(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// entry is one of a tar stream that a test alters.
type entry struct {
	header  tar.Header
	content []byte
}

func entries(t testing.TB, backup []byte, identity age.Identity) []entry {
	t.Helper()
	plain, err := age.Decrypt(bytes.NewReader(backup), identity)
	if err != nil {
		t.Fatal(err)
	}
	var found []entry
	for in := tar.NewReader(plain); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, entry{*h, content})
	}
}

func seal(t testing.TB, plain []byte, to age.Recipient) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func packed(t testing.TB, list []entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range list {
		e.header.Size, e.header.PAXRecords, e.header.Format = int64(len(e.content)), nil, tar.FormatPAX
		if err := w.WriteHeader(&e.header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// with puts an entry before the manifest, which names it if it is a file.
func with(t testing.TB, list []entry, added entry) []entry {
	t.Helper()
	last := len(list) - 1
	var m site.Manifest
	if err := json.Unmarshal(list[last].content, &m); err != nil {
		t.Fatal(err)
	}
	if added.header.Typeflag == tar.TypeReg {
		sum := sha256.Sum256(added.content)
		m.Files = append(m.Files, site.FileInfo{Name: added.header.Name, Size: int64(len(added.content)), SHA256: hex.EncodeToString(sum[:])})
	}
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	changed := append(append([]entry{}, list[:last]...), added, list[last])
	changed[last+1].content = text
	return changed
}

func regular(name, content string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600}, []byte(content)}
}

// sparse is a tar stream by another program, of a file of a tebibyte in a few octets.
func sparse(t testing.TB) []byte {
	t.Helper()
	out, err := exec.Command("sh", "-ec", `cd "$1"; truncate -s 1T huge; tar --format=pax --sparse -cf - huge`, "sh", t.TempDir()).Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestHostileBackups: whatever a backup does to leave its folder, to fill the disk or to pass for whole,
// it is refused, and nothing is left behind.
func TestHostileBackups(t *testing.T) {
	t.Parallel()
	us := keys(t)
	whole := backupOf(t, worlds(t).other, us.Recipient())
	list := entries(t, whole, us)
	last := len(list) - 1
	altered := func(change func([]entry) []entry) []byte {
		copied := append([]entry{}, list...)
		return seal(t, packed(t, change(copied)), us.Recipient())
	}
	adding := func(e entry) []byte { return altered(func(l []entry) []entry { return with(t, l, e) }) }
	link := func(kind byte, name, to string) entry {
		return entry{header: tar.Header{Typeflag: kind, Name: name, Linkname: to, Mode: 0o777}}
	}
	edited := func(from, to string) []byte {
		return altered(func(l []entry) []entry {
			l[last].content = bytes.Replace(l[last].content, []byte(from), []byte(to), 1)
			return l
		})
	}
	flipped := bytes.Clone(whole)
	flipped[len(flipped)/2] ^= 1
	for name, c := range map[string]struct {
		backup []byte
		want   string
	}{
		"empty":                 {nil, "cannot be used"},
		"nonsense":              {[]byte("nonsense"), "cannot be used"},
		"another's":             {backupOf(t, worlds(t).other, keys(t).Recipient()), "other recipients"},
		"cut in the head":       {whole[:100], "cannot be used"},
		"cut in the middle":     {whole[:len(whole)/2], "cannot be used"},
		"cut by an octet":       {whole[:len(whole)-1], "cannot be used"},
		"an octet more":         {append(bytes.Clone(whole), 0), "cannot be used"},
		"a bit changed":         {flipped, "cannot be used"},
		"no tar":                {seal(t, []byte(strings.Repeat("nonsense", 1000)), us.Recipient()), "cannot be used"},
		"nothing in it":         {seal(t, nil, us.Recipient()), "without a manifest"},
		"no manifest":           {altered(func(l []entry) []entry { return l[:last] }), "without a manifest"},
		"stopped early":         {seal(t, packed(t, list)[:20<<10], us.Recipient()), "cannot be used"},
		"behind the manifest":   {altered(func(l []entry) []entry { return append(l, regular("more", "")) }), `"more" stands behind its manifest`},
		"behind the end":        {seal(t, append(packed(t, list), 1), us.Recipient()), "something stands behind its end"},
		"out by dots":           {adding(regular("../evil", "x")), "not a name inside"},
		"out in the middle":     {adding(regular("state/../../evil", "x")), "not a name inside"},
		"absolute":              {adding(regular("/tmp/evil", "x")), "not a name inside"},
		"another spelling":      {adding(regular("./state//evil", "x")), "not a name inside"},
		"a symlink":             {adding(link(tar.TypeSymlink, "state/evil", "/etc/passwd")), "neither a file nor a folder"},
		"a link":                {adding(link(tar.TypeLink, "state/evil", "/etc/passwd")), "neither a file nor a folder"},
		"a device":              {adding(link(tar.TypeBlock, "state/evil", "")), "neither a file nor a folder"},
		"a pipe":                {adding(link(tar.TypeFifo, "state/evil", "")), "neither a file nor a folder"},
		"setuid":                {adding(entry{tar.Header{Typeflag: tar.TypeReg, Name: "su", Mode: 0o4755}, nil}), "mode 4755"},
		"setgid":                {adding(entry{tar.Header{Typeflag: tar.TypeReg, Name: "sg", Mode: 0o2755}, nil}), "mode 2755"},
		"for everybody":         {adding(entry{tar.Header{Typeflag: tar.TypeReg, Name: "open", Mode: 0o666}, nil}), "mode 0666"},
		"sparse":                {seal(t, sparse(t), us.Recipient()), "sparse"},
		"twice":                 {adding(regular("chancery.yaml", "listen: nowhere")), "in it twice"},
		"a folder as a file":    {adding(entry{header: tar.Header{Typeflag: tar.TypeDir, Name: "chancery.yaml/", Mode: 0o700}}), "in it twice"},
		"below a file":          {adding(regular("chancery.yaml/evil", "x")), "not a directory"},
		"not in the manifest":   {altered(func(l []entry) []entry { return append(append(l[:last:last], regular("more", "")), l[last]) }), "not in its manifest"},
		"only in the manifest":  {altered(func(l []entry) []entry { return append(l[:last-1:last-1], l[last]) }), "in its manifest and not in it"},
		"another file":          {altered(func(l []entry) []entry { l[2].content = append(bytes.Clone(l[2].content), '\n'); return l }), "not what its manifest says"},
		"another hash":          {edited(`"sha256": "`, `"sha256": "00`), "not what its manifest says"},
		"another log":           {edited(`"root": "`, `"root": "00`), "the manifest says"},
		"of the future":         {edited(`"format": 1`, `"format": 2`), "it has format 2"},
		"a manifest of noise":   {edited(`{`, `[`), "manifest cannot be read"},
		"a manifest too large":  {altered(func(l []entry) []entry { l[last].content = make([]byte, 2<<20); return l }), "manifest has 2097152 octets"},
		"a place outside":       {edited(`"left_out"`, `"elsewhere": [{"name": "../../../../etc/shadow", "path": "/tmp/mine"}], "left_out"`), "no place for a part"},
		"a place of no part":    {edited(`"left_out"`, `"elsewhere": [{"name": "ssh", "path": "/root/.ssh"}], "left_out"`), "no place for a part"},
		"a place that moves":    {edited(`"left_out"`, `"elsewhere": [{"name": "state", "path": "--target-directory=x"}], "left_out"`), "no place for a part"},
		"thousands":             {altered(func(l []entry) []entry { return thousands(l, last) }), "more than 1000 entries"},
		"a store that is no db": {altered(func(l []entry) []entry { return swap(t, l, "state/store.db", "no database") }), "the backup cannot be used"},
		"a config that is none": {altered(func(l []entry) []entry { return swap(t, l, "chancery.yaml", "listen: [") }), "the backup cannot be used"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			parent := t.TempDir()
			restore := site.Restore{Identities: []age.Identity{us}, Dir: filepath.Join(parent, "new")}
			_, err := restore.Run(t.Context(), bytes.NewReader(c.backup))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q", err, c.want)
			}
			if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v %v", left, err)
			}
		})
	}
	if _, err := (site.Restore{Identities: []age.Identity{us}}).Check(t.Context(), bytes.NewReader(whole)); err != nil {
		t.Errorf("what was not altered: %v", err)
	}
}

func thousands(l []entry, last int) []entry {
	many := append([]entry{}, l[:last]...)
	for n := range 1100 {
		many = append(many, entry{header: tar.Header{Typeflag: tar.TypeDir, Name: "d" + strings.Repeat("x", n%100) + hex.EncodeToString([]byte{byte(n >> 8), byte(n)}) + "/", Mode: 0o700}})
	}
	return append(many, l[last])
}

// swap gives a file another content, which the manifest vouches for.
func swap(t testing.TB, l []entry, name, content string) []entry {
	t.Helper()
	last := len(l) - 1
	var m site.Manifest
	if err := json.Unmarshal(l[last].content, &m); err != nil {
		t.Fatal(err)
	}
	for i := range l {
		if l[i].header.Name == name {
			l[i].content = []byte(content)
		}
	}
	for i := range m.Files {
		if m.Files[i].Name == name {
			sum := sha256.Sum256([]byte(content))
			m.Files[i].Size, m.Files[i].SHA256 = int64(len(content)), hex.EncodeToString(sum[:])
		}
	}
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	l[last].content = text
	return l
}

// TestBackupLeavesNothingHalf: a full disk, an interruption or a file that is missing leaves no backup, and
// nothing else either; and what an earlier one left when it was killed is cleared.
func TestBackupLeavesNothingHalf(t *testing.T) {
	t.Parallel()
	us := keys(t)
	dir := copyOf(t, worlds(t).night)
	b := site.Backup{Config: config(t, dir), Recipients: []age.Recipient{us.Recipient()}}
	out := t.TempDir()
	nothing := func(what string) {
		t.Helper()
		if left, err := os.ReadDir(out); err != nil || len(left) > 0 {
			t.Errorf("%s: left behind: %v %v", what, left, err)
		}
		if _, err := os.Lstat(filepath.Join(dir, "state", ".backup")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the copy of the store is left behind", what)
		}
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	if _, err := b.Write(t.Context(), full); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a full disk: %v", err)
	}
	nothing("a full disk")
	ctx, cancel := context.WithCancel(t.Context())
	stopped := b
	stopped.Progress = func(octets int64) {
		if octets > 1000 {
			cancel()
		}
	}
	if _, err := stopped.ToFile(ctx, filepath.Join(out, "b")); !errors.Is(err, context.Canceled) {
		t.Errorf("an interruption: %v", err)
	}
	nothing("an interruption")
	if err := os.Rename(filepath.Join(dir, "keyroom", "users.key"), filepath.Join(dir, "away")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ToFile(t.Context(), filepath.Join(out, "b")); err == nil || !strings.Contains(err.Error(), "keyroom/users.key") {
		t.Errorf("a missing key: %v", err)
	}
	nothing("a missing key")
	if err := errors.Join(os.Rename(filepath.Join(dir, "away"), filepath.Join(dir, "keyroom", "users.key")),
		os.Mkdir(filepath.Join(dir, "state", ".backup"), 0o700),
		os.WriteFile(filepath.Join(dir, "state", ".backup", "store.db"), []byte("half"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ToFile(t.Context(), filepath.Join(out, "b")); err != nil {
		t.Errorf("after one that was killed: %v", err)
	}
	if _, err := b.ToFile(t.Context(), filepath.Join(out, "b")); !errors.Is(err, site.ErrConfig) {
		t.Errorf("over another: %v", err)
	}
	if err := os.Remove(filepath.Join(out, "b")); err != nil {
		t.Fatal(err)
	}
	nothing("in the end")
}

// TestBackupOfAnInstallationThatIsElsewhere: state, secrets and key room of other folders and other users
// come back with their modes and owners, and the operator is told where they were.
func TestBackupOfAnInstallationThatIsElsewhere(t *testing.T) {
	t.Parallel()
	us := keys(t)
	dir, away, safe := copyOf(t, worlds(t).night), filepath.Join(scratch, "elsewhere"), t.TempDir()
	run(t, "sh", "-ec", `cd "$1"; mkdir "$2"; mv state keyroom directory.ldif "$2"
sed -i "s|ldif:directory.ldif|ldif://$2/directory.ldif|; s|^state: .*|state: $2/state|; s|^keyroom: .*|keyroom: $2/keyroom/socket|" chancery.yaml
sed -i "s|\"socket\": .*|\"socket\": \"$2/keyroom/socket\",|; s|\"state\": .*|\"state\": \"$2/keyroom\",|" keyroom.json
chown -R 4711:4712 "$2/keyroom"; chmod 0750 "$2/state"
mkdir -p run/kr; mv secrets/keyroom.passphrase run/kr; chown -R 4711:4712 run/kr; chmod 2750 run/kr
sed -i 's|secrets/keyroom.passphrase|run/kr/keyroom.passphrase|' keyroom.json`, "sh", dir, away)
	backup := backupOf(t, dir, us.Recipient())
	to := filepath.Join(t.TempDir(), "new")
	m, err := site.Restore{Identities: []age.Identity{us}, Dir: to}.Run(t.Context(), bytes.NewReader(backup))
	if err != nil {
		t.Fatal(err)
	}
	if got := run(t, "stat", "-c", "%a %u %g", to+"/state", to+"/state/store.db", to+"/keyroom", to+"/keyroom/log.key", to+"/run/kr"); got != "750 0 0\n600 0 0\n700 4711 4712\n400 4711 4712\n2750 4711 4712\n" {
		t.Errorf("modes and owners are\n%s", got)
	}
	steps, err := site.Steps(to, m)
	if err != nil {
		t.Fatal(err)
	}
	var commands []string
	for _, s := range steps {
		commands = append(commands, s.Command)
	}
	text := strings.Join(commands, "\n")
	for _, name := range []string{"state", "keyroom", "directory.ldif"} {
		if want := "mv -T " + to + "/" + name + " " + away + "/" + name; !strings.Contains(text, want) {
			t.Errorf("the steps do not have %q:\n%s", want, text)
		}
	}
	// They put everything where it was; the passphrase and the repository come from where they are kept.
	run(t, "cp", "-a", dir+"/run", dir+"/config.git", safe)
	run(t, "rm", "-r", away)
	for _, s := range steps {
		switch {
		case strings.HasPrefix(s.Command, "install "):
			run(t, "cp", "-a", safe+"/run/kr/keyroom.passphrase", to+"/run/kr")
		case strings.HasPrefix(s.Command, "git clone"):
			run(t, "cp", "-a", safe+"/config.git", to)
		case strings.HasPrefix(s.Command, "mkdir "):
			run(t, "sh", "-c", s.Command)
		}
	}
	room(t, to)
	clean(t, to)
}

// TestBackupOfADamagedStore: what could not be restored does not pass for a backup.
func TestBackupOfADamagedStore(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ damage, want string }{
		"a leaf": {`c.execute("UPDATE leaf SET leaf = CAST(replace(CAST(leaf AS TEXT), 'alice', 'alicia') AS BLOB) WHERE position = ?", [intent("alice")])`, "does not follow from the log"},
		"a row":  {`c.execute("PRAGMA foreign_keys=OFF"); c.execute("UPDATE certificate SET intent = 9999 WHERE cn = 'alice'")`, "run chancery fsck"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, out := copyOf(t, worlds(t).night), t.TempDir()
			python(t, dir, c.damage)
			_, err := (site.Backup{Config: config(t, dir), Recipients: []age.Recipient{keys(t).Recipient()}}).ToFile(t.Context(), filepath.Join(out, "b"))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q", err, c.want)
			}
			if left, err := os.ReadDir(out); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v %v", left, err)
			}
		})
	}
}

// TestBackupsUnderLoad makes backups while callers are served, lists are published and the key room signs.
// Every one of them comes back, with the repository as it was when the backup began, and goes on.
func TestBackupsUnderLoad(t *testing.T) {
	t.Parallel()
	us, dir, safe := keys(t), copyOf(t, worlds(t).night), t.TempDir()
	const backups = 4
	serve(t, dir, func() error {
		stop, done := make(chan struct{}), make(chan error, 2)
		for worker := range 2 {
			go func() { done <- comeAndGo(dir, strconv.Itoa(worker), stop) }()
		}
		for n := range backups {
			name := filepath.Join(safe, strconv.Itoa(n))
			run(t, "git", "clone", "-q", "--bare", filepath.Join(dir, "config.git"), name+".git")
			b := site.Backup{Config: config(t, dir), Recipients: []age.Recipient{us.Recipient()}}
			if m, err := b.ToFile(t.Context(), name); err != nil || m.Room == nil {
				t.Errorf("backup %d: %+v %v", n, m.Room, err)
			}
		}
		close(stop)
		return errors.Join(<-done, <-done)
	})
	for n := range backups {
		comeBack(t, dir, filepath.Join(safe, strconv.Itoa(n)), us)
	}
}

// comeAndGo has people come and go until it is stopped.
func comeAndGo(dir, worker string, stop chan struct{}) error {
	for n := 0; ; n++ {
		name := "w" + worker + "-" + strconv.Itoa(n)
		if err := callAll(dir, issue("user", name), issue("user", name+"b"), revoke(name, "superseded")); err != nil {
			return err
		}
		select {
		case <-stop:
			return nil
		default:
		}
	}
}

// comeBack restores a backup with the means of an operator, and has it work.
func comeBack(t *testing.T, old, backup string, us age.Identity) {
	t.Helper()
	f, err := os.Open(backup)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dir := filepath.Join(scratch, strconv.FormatInt(copies.Add(1), 10))
	m, err := site.Restore{Identities: []age.Identity{us}, Dir: dir}.Run(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	run(t, "cp", "-a", filepath.Join(old, "secrets", "keyroom.passphrase"), filepath.Join(dir, "secrets"))
	run(t, "cp", "-a", filepath.Join(old, "callers"), dir)
	run(t, "cp", "-a", backup+".git", filepath.Join(dir, "config.git"))
	keyroom := room(t, dir)
	if code, stdout, stderr := chancery(t, "recover", dir); code != 0 {
		t.Fatalf("recover: exit code %d\n%s%s", code, stdout, stderr)
	}
	if n := leafCount(t, dir); int64(n) < max(m.Log.Size, m.Room.Size) {
		t.Errorf("%d leaves after recover; the manifest says %d, and %d in the key room", n, m.Log.Size, m.Room.Size)
	}
	keyroom.kill()
	serve(t, dir, func() error {
		if err := callAll(dir, issue("user", "zoe"), revoke("zoe", "superseded"), revoke("alice", "superseded")); err != nil {
			return err
		}
		return inStore(dir, func(_ [][]byte, debts []store.Debt) bool { return len(debts) == 0 })
	})
	room(t, dir)
	clean(t, dir)
	serials := strings.Fields(python(t, dir, `print(*[json.loads(l)["event"]["serial"] for l in leaves() if json.loads(l)["type"] == "issue.intent"])`))
	if slices.Sort(serials); len(slices.Compact(slices.Clone(serials))) != len(serials) {
		t.Error("a serial number is there twice")
	}
}

// TestBackupFollowsNoLinkOfTheDaemon: whoever has the daemon chooses what is in its folders, and root makes
// the backup there. What his links point to stays as it is, and does not get into the backup.
func TestBackupFollowsNoLinkOfTheDaemon(t *testing.T) {
	t.Parallel()
	us := keys(t)
	for name, c := range map[string]struct{ plant, want string }{
		"a folder for the copy that is a link":       {`ln -s "$2" state/.backup`, ""},
		"a folder for the copy that is the daemon's": {`mkdir state/.backup; ln -s "$2/passwd" state/.backup/store.db`, ""},
		"a write-ahead log that is a link":           {`rm -f state/store.db-wal; ln -s "$2/passwd" state/store.db-wal`, "*"},
		"a secret that is a link":                    {`rm secrets/git_signing.key; ln -s "$2/passwd" secrets/git_signing.key`, "git_signing.key is a link"},
		"a lock that is a pipe":                      {`rm state/lock; mkfifo state/lock`, "state/lock is not a file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, victim, out := copyOf(t, worlds(t).night), t.TempDir(), filepath.Join(t.TempDir(), "out")
			t.Cleanup(func() { _ = asRoot("rm", "-rf", dir, out).Run() }) // owned by others
			if text, err := asRoot("sh", "-ec", `echo precious >"$2/passwd"; chown root "$2/passwd"; chmod 0600 "$2/passwd"
chown root "$1"; cd "$1"; `+c.plant+`; chown -Rh 4001:4001 state secrets`, "sh", dir, victim).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			text, err := asRoot("timeout", "-k1", "60", filepath.Join(bin(t), "chancery"), "backup", dir, out, "--recipient", us.Recipient().String()).CombinedOutput()
			if c.want != "*" && (err == nil) != (c.want == "") || !strings.Contains(string(text), strings.Trim(c.want, "*")) {
				t.Errorf("%v, want %q\n%s", err, c.want, text)
			}
			left, _ := asRoot("sh", "-c", `cd "$1"; ls -A; stat -c "%u %a" passwd; cat passwd`, "sh", victim).CombinedOutput()
			if string(left) != "passwd\n0 600\nprecious\n" {
				t.Errorf("what the link pointed to is now\n%s", left)
			}
		})
	}
}
