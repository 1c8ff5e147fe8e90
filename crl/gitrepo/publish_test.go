package gitrepo

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
)

func TestInitBareIsAGitRepository(t *testing.T) {
	path := newBare(t)
	checkRepo(t, path)
	if got := git(t, path, "symbolic-ref", "HEAD"); got != "refs/heads/main" {
		t.Errorf("HEAD is %s", got)
	}
	if err := InitBare(path, "main"); !errors.Is(err, os.ErrExist) {
		t.Errorf("second init: %v", err)
	}
	empty := t.TempDir()
	if err := InitBare(empty, "main"); !errors.Is(err, os.ErrExist) {
		t.Errorf("init over an empty folder: %v", err)
	}
	for _, branch := range []string{"", "..", "a..b", "a.lock", "-x", "a b", "/a", "a/", "a\nb", "../../x"} {
		if err := InitBare(path+"2", branch); err == nil {
			t.Errorf("branch %q accepted", branch)
		}
	}
	if left, _ := filepath.Glob(path + "?*"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}

	// Nobody rewrites or deletes the history by pushing.
	publish(t, openMain(t, path), Files{"users.crl": []byte("one")})
	publish(t, openMain(t, path), Files{"users.crl": []byte("two")})
	work := filepath.Join(t.TempDir(), "work")
	git(t, ".", "clone", "-q", path, work)
	git(t, work, "push", "-q", "origin", "HEAD:other")
	for _, args := range [][]string{{"push", "--force", "origin", "HEAD~1:main"}, {"push", "origin", ":main"}, {"push", "origin", ":other"}} {
		if out, err := gitCommand(work, args...).CombinedOutput(); err == nil {
			t.Errorf("git %v went through:\n%s", args, out)
		}
	}
}

func TestPublishIntoAnEmptyRepository(t *testing.T) {
	path := newBare(t)
	files := Files{"users.crl": {0, 1, 2, '\r', '\n'}, "ca/users.pem": []byte("pem\n"), "empty": {}, "rehash/0a.r0": []byte("x")}
	commit := publish(t, openMain(t, path), files)
	checkRepo(t, path)
	verifyCommit(t, path, commit)

	if tip := git(t, path, "rev-parse", "main"); tip != commit {
		t.Errorf("tip %s, commit %s", tip, commit)
	}
	want := "Chancery <ca@example.org> 2026-03-04T03:06:07+00:00|Chancery <ca@example.org> 2026-03-04T03:06:07+00:00|crl(users): number 1|CRL-Number: 1\n"
	if got := git(t, path, "log", "-1", "--format=%an <%ae> %aI|%cn <%ce> %cI|%s|%(trailers)"); got != strings.TrimRight(want, "\n") {
		t.Errorf("log: %s", got)
	}
	work := filepath.Join(t.TempDir(), "work")
	git(t, ".", "clone", "-q", path, work)
	for name, content := range files {
		got, err := os.ReadFile(filepath.Join(work, "site/pki", name))
		if err != nil || string(got) != string(content) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if got := git(t, path, "ls-tree", "-r", "--name-only", "main"); strings.Count(got, "\n") != len(files)-1 {
		t.Errorf("tree:\n%s", got)
	}
}

func TestEveryKindOfSigningKeyVerifies(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []any{ec, rs} {
		signer, err := ssh.NewSignerFromKey(key)
		if err != nil {
			t.Fatal(err)
		}
		path := newBare(t)
		p := publisher(openMain(t, path))
		p.Signer = signer
		commit, _, err := p.Publish(context.Background(), func(Files) (Change, error) {
			return Change{Files: Files{"a": nil}, Message: "m"}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		allowed := filepath.Join(t.TempDir(), "allowed")
		os.WriteFile(allowed, append([]byte("ca@example.org "), ssh.MarshalAuthorizedKey(signer.PublicKey())...), 0o600)
		git(t, path, "-c", "gpg.ssh.allowedSignersFile="+allowed, "verify-commit", commit)
	}
}

// othersTree has what a normaliser would spoil: modes, links, a submodule, odd
// names, an old tool's modes, and names that sort around our folder's.
func othersTree(t *testing.T, path string) string {
	t.Helper()
	script := `blob
mark :1
data 3
abc
commit refs/heads/main
committer Alice <alice@example.org> 1700000000 +0530
data 4
base
M 100644 :1 README
M 100755 :1 bin/run
M 120000 :1 link
M 160000 1234567890123456789012345678901234567890 module
M 100644 :1 "odd \"name\"\twith\nlines"
M 100644 :1 "latin\351"
M 100644 :1 site.txt
M 100644 :1 site-a/x
M 100644 :1 site/pki-other/x
M 120000 :1 site/pki.link
M 100755 :1 site/zz
M 160000 1234567890123456789012345678901234567890 site/aa

`
	gitIn(t, path, script, "fast-import", "--quiet", "--date-format=raw")
	return git(t, path, "ls-tree", "-r", "-z", "main")
}

func TestOthersEntriesStayByteForByte(t *testing.T) {
	path := newBare(t)
	before := othersTree(t, path)
	base := git(t, path, "rev-parse", "main")
	l := openMain(t, path)
	publish(t, l, Files{"users.crl": []byte("one"), "ca/x.pem": []byte("x")})
	publish(t, l, Files{"users.crl": []byte("two")})
	checkRepo(t, path)

	listing := git(t, path, "ls-tree", "-r", "-z", "main")
	var others []string
	for line := range strings.SplitSeq(listing, "\x00") {
		if !strings.Contains(line, "\tsite/pki/") {
			others = append(others, line)
		}
	}
	if diff := cmp.Diff(before, strings.Join(others, "\x00")); diff != "" {
		t.Error(diff)
	}
	git(t, path, "merge-base", "--is-ancestor", base, "main")

	// Taking our files away again gives the very tree that was there.
	commit, changed, err := publisher(l).Publish(context.Background(), func(now Files) (Change, error) {
		return Change{Remove: []string{"users.crl", "ca/x.pem", "never/was"}, Message: "gone"}, nil
	})
	if err != nil || !changed {
		t.Fatal(changed, err)
	}
	if got, want := git(t, path, "rev-parse", commit+"^{tree}"), git(t, path, "rev-parse", base+"^{tree}"); got != want {
		t.Errorf("tree %s, was %s", got, want)
	}
}

func TestOldModesOnThePathStay(t *testing.T) {
	path := newBare(t)
	b := blob(t, path, "x")
	sub := rawTree(t, path, "100664", "group", b)
	site := rawTree(t, path, "100664", "old", b, "040000", "padded", sub)
	setTree(t, path, rawTree(t, path, "100640", "a", b, "40000", "site", site, "0040000", "zero", sub))
	publish(t, openMain(t, path), Files{"users.crl": []byte("one")})
	root := git(t, path, "cat-file", "tree", "main^{tree}")
	below := git(t, path, "cat-file", "tree", "main:site")
	for _, want := range []string{"100640 a\x00", "0040000 zero\x00"} {
		if !strings.Contains(root, want) {
			t.Errorf("root lost %q", want)
		}
	}
	for _, want := range []string{"100664 old\x00", "040000 padded\x00"} {
		if !strings.Contains(below, want) {
			t.Errorf("site lost %q", want)
		}
	}
}

func TestNoChangeNoCommit(t *testing.T) {
	path := newBare(t)
	l := openMain(t, path)
	nothing := func(Files) (Change, error) { return Change{Message: "m", Remove: []string{"x"}}, nil }
	commit, changed, err := publisher(l).Publish(context.Background(), nothing)
	if commit != "" || changed || err != nil {
		t.Fatal(commit, changed, err)
	}
	first := publish(t, l, Files{"a": []byte("1"), "ca/b": []byte("2")})
	commit, changed, err = publisher(l).Publish(context.Background(), func(now Files) (Change, error) {
		return Change{Files: now, Message: "m"}, nil
	})
	if commit != first || changed || err != nil {
		t.Fatal(commit, changed, err)
	}
	if n := git(t, path, "rev-list", "--count", "main"); n != "1" {
		t.Errorf("%s commits", n)
	}
}

func TestTamperingIsSeenAndPutRight(t *testing.T) {
	path := newBare(t)
	l := openMain(t, path)
	publish(t, l, Files{"users.crl": []byte("good"), "servers.crl": []byte("good"), "ca/a.pem": []byte("good"), "mode": []byte("good")})
	work := filepath.Join(t.TempDir(), "work")
	git(t, ".", "clone", "-q", path, work)
	script := `cd site/pki && printf bad > users.crl && rm servers.crl && ln -s /etc/passwd servers.crl &&
		rm -r ca && ln -s / ca && printf x > extra && chmod +x mode`
	if out, err := shell(work, script); err != nil {
		t.Fatal(string(out))
	}
	git(t, work, "add", "-A")
	git(t, work, "commit", "-qm", "vandal")
	git(t, work, "push", "-q", "origin", "main")

	want := Files{"users.crl": []byte("good"), "servers.crl": []byte("good"), "ca/a.pem": []byte("good"), "mode": []byte("good")}
	commit, changed, err := publisher(l).Publish(context.Background(), func(now Files) (Change, error) {
		seen := Files{"users.crl": []byte("bad"), "extra": []byte("x"), "mode": []byte("good")}
		if diff := cmp.Diff(seen, now); diff != "" {
			t.Error(diff)
		}
		return Change{Files: want, Remove: []string{"extra"}, Message: "ours again"}, nil
	})
	if err != nil || !changed {
		t.Fatal(changed, err)
	}
	checkRepo(t, path)
	got, tip, err := Read(context.Background(), l, "site/pki")
	if err != nil || tip.Commit != commit {
		t.Fatal(tip, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if modes := git(t, path, "ls-tree", "-r", "--format=%(objectmode)", "main"); strings.Trim(modes, "1064\n") != "" {
		t.Errorf("modes:\n%s", modes)
	}
}

func TestPackedRefsAndObjects(t *testing.T) {
	path := newBare(t)
	l := openMain(t, path)
	one := publish(t, l, Files{"a": []byte("1")})
	git(t, path, "pack-refs", "--all", "--prune")
	if _, err := os.Lstat(filepath.Join(path, "refs/heads/main")); err == nil {
		t.Fatal("the branch is still loose")
	}
	two := publish(t, l, Files{"a": []byte("2")})
	git(t, path, "gc", "-q")
	three := publish(t, l, Files{"a": []byte("3")})
	git(t, path, "repack", "-adq")
	git(t, path, "pack-refs", "--all")
	// What a git that was killed while it repacked leaves behind.
	torn := filepath.Join(path, "objects/pack/pack-"+strings.Repeat("7", 40)+".pack")
	if err := os.WriteFile(torn, []byte("PACK"), 0o444); err != nil {
		t.Fatal(err)
	}
	files, tip, err := Read(context.Background(), l, "site/pki")
	if err != nil || tip.Commit != three || string(files["a"]) != "3" {
		t.Fatal(tip, err)
	}
	os.Remove(torn)
	if got := git(t, path, "rev-list", "main"); got != three+"\n"+two+"\n"+one {
		t.Errorf("history:\n%s", got)
	}
	checkRepo(t, path)
}

func TestBranchInAFolder(t *testing.T) {
	path := newBare(t)
	l, err := OpenLocal(path, "env/production")
	if err != nil {
		t.Fatal(err)
	}
	publish(t, l, Files{"a": []byte("1")})
	git(t, path, "pack-refs", "--all", "--prune") // removes refs/heads/env
	publish(t, l, Files{"a": []byte("2")})
	if got := git(t, path, "show", "env/production:site/pki/a"); got != "2" {
		t.Errorf("a is %q", got)
	}
	git(t, path, "pack-refs", "--all", "--prune")
	for _, branch := range []string{"env", "env/production/x"} {
		beside, err := OpenLocal(path, branch)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := Read(context.Background(), beside, "pki"); err == nil {
			t.Errorf("branch %s beside env/production", branch)
		}
	}
	checkRepo(t, path)
}

func TestBadArguments(t *testing.T) {
	path := newBare(t)
	l := openMain(t, path)
	write := func(name string) func(Files) (Change, error) {
		return func(Files) (Change, error) { return Change{Files: Files{name: []byte("x")}, Message: "m"}, nil }
	}
	for _, name := range []string{
		"", ".", "..", "/a", "a/", "a//b", "../a", "a/../b", ".git", ".GIT/config", "x/.Git", ".git.", ".git ", "git~1",
		".g\u200cit", ".git::$INDEX_ALLOCATION", "a\x00b", "a\nb", `a\b`, "\xff", "\u202e", strings.Repeat("a", 256), strings.Repeat("a/", 20) + "a",
	} {
		if _, _, err := publisher(l).Publish(context.Background(), write(name)); err == nil {
			t.Errorf("file %q accepted", name)
		}
		p := publisher(l)
		p.Folder = name
		if _, _, err := p.Publish(context.Background(), write("a")); err == nil {
			t.Errorf("folder %q accepted", name)
		}
	}
	for _, c := range []Change{
		{Files: Files{"a": nil, "a/b": nil}, Message: "m"},
		{Files: Files{"a": nil}, Remove: []string{"a"}, Message: "m"},
		{Files: Files{"a": nil}, Message: " \n"},
		{Files: Files{"a": nil}, Message: "a\x00b"},
		{Files: Files{"a": make([]byte, maxFile+1)}, Message: "m"},
	} {
		if _, _, err := publisher(l).Publish(context.Background(), func(Files) (Change, error) { return c, nil }); err == nil {
			t.Errorf("accepted: %.40q %v", c.Message, c.Remove)
		}
	}
	for _, name := range []string{"", "a\nb", "a <b>"} {
		p := publisher(l)
		p.AuthorName = name
		if _, _, err := p.Publish(context.Background(), write("a")); err == nil {
			t.Errorf("author %q accepted", name)
		}
	}
	mine := errors.New("mine")
	if _, _, err := publisher(l).Publish(context.Background(), func(Files) (Change, error) { return Change{}, mine }); err != mine {
		t.Errorf("content's error came out as %v", err)
	}
	if refs := git(t, path, "for-each-ref"); refs != "" {
		t.Errorf("something was written: %s", refs)
	}
}

func TestOpenRefusesWhatAPushWouldBreak(t *testing.T) {
	work := t.TempDir()
	git(t, work, "init", "-q", "-b", "main")
	sha256 := t.TempDir()
	git(t, sha256, "init", "-q", "--bare", "--object-format=sha256")
	for _, path := range []string{work, filepath.Join(work, ".git"), sha256, t.TempDir(), "/nonexistent"} {
		if _, err := OpenLocal(path, "main"); err == nil {
			t.Errorf("%s opened", path)
		}
	}
	native := t.TempDir()
	git(t, native, "init", "-q", "--bare", "-b", "main")
	publish(t, openMain(t, native), Files{"a": []byte("1")})
	checkRepo(t, native)
}
