package gitrepo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/storer"
)

func shell(dir, script string) ([]byte, error) {
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = dir
	return cmd.CombinedOutput()
}

func TestHostileTrees(t *testing.T) {
	const submodule = "1234567890123456789012345678901234567890"
	for name, build := range map[string]func(path, b, folder string) string{
		"folder is a link": func(p, b, f string) string { return rawTree(t, p, "40000", "site", rawTree(t, p, "120000", "pki", b)) },
		"folder is a file": func(p, b, f string) string { return rawTree(t, p, "40000", "site", rawTree(t, p, "100644", "pki", b)) },
		"folder is a submodule": func(p, b, f string) string {
			return rawTree(t, p, "40000", "site", rawTree(t, p, "160000", "pki", submodule))
		},
		"parent is a link":        func(p, b, f string) string { return rawTree(t, p, "120000", "site", b) },
		"parent is a submodule":   func(p, b, f string) string { return rawTree(t, p, "160000", "site", submodule) },
		"parent is twice there":   func(p, b, f string) string { return rawTree(t, p, "120000", "site", b, "40000", "site", f) },
		"folder's tree is a blob": func(p, b, f string) string { return rawTree(t, p, "40000", "site", rawTree(t, p, "40000", "pki", b)) },
		"folder's tree is missing": func(p, b, f string) string {
			return rawTree(t, p, "40000", "site", rawTree(t, p, "40000", "pki", submodule))
		},
		".. below the folder": func(p, b, f string) string {
			return rawTree(t, p, "40000", "site", rawTree(t, p, "40000", "pki", rawTree(t, p, "100644", "..", b)))
		},
		".git below the folder": func(p, b, f string) string {
			return rawTree(t, p, "40000", "site", rawTree(t, p, "40000", "pki", rawTree(t, p, "40000", ".gIt", f)))
		},
		"slash in a name": func(p, b, f string) string {
			return rawTree(t, p, "40000", "site", rawTree(t, p, "40000", "pki", rawTree(t, p, "100644", "../x", b)))
		},
		"a file that is a tree": func(p, b, f string) string {
			return rawTree(t, p, "40000", "site", rawTree(t, p, "40000", "pki", rawTree(t, p, "100644", "users.crl", f)))
		},
		"too deep": func(p, b, f string) string {
			for range maxDepth + 1 {
				f = rawTree(t, p, "40000", "d", f)
			}
			return rawTree(t, p, "40000", "site", rawTree(t, p, "40000", "pki", f))
		},
		"ten to the ninth files": func(p, b, f string) string {
			for range 9 {
				var ten []string
				for i := range 10 {
					ten = append(ten, "40000", fmt.Sprint(i), f)
				}
				f = rawTree(t, p, ten...)
			}
			return rawTree(t, p, "40000", "site", rawTree(t, p, "40000", "pki", f))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := newBare(t)
			b := blob(t, path, "/etc")
			tip := setTree(t, path, build(path, b, rawTree(t, path, "100644", "x", b)))
			l := openMain(t, path)
			_, _, err := publisher(l).Publish(context.Background(), func(Files) (Change, error) {
				t.Error("content was asked")
				return Change{}, nil
			})
			if err == nil {
				t.Fatal("published")
			}
			if strings.Contains(name, "missing") != errors.Is(err, plumbing.ErrObjectNotFound) ||
				!strings.Contains(name, "missing") && !errors.Is(err, ErrHostile) {
				t.Errorf("error: %v", err)
			}
			if strings.Contains(name, "is a blob") && !strings.Contains(err.Error(), "it is a blob") {
				t.Errorf("unclear: %v", err)
			}
			if _, _, err := Read(context.Background(), l, "site/pki"); err == nil {
				t.Error("read")
			}
			if got := git(t, path, "rev-parse", "main"); got != tip {
				t.Errorf("the branch moved to %s", got)
			}
		})
	}
}

// What others keep elsewhere is none of our business, however odd.
func TestHostileNamesElsewhereStay(t *testing.T) {
	path := newBare(t)
	b := blob(t, path, "x")
	odd := rawTree(t, path, "100644", "..", b, "40000", ".git", rawTree(t, path, "100644", "config", b))
	setTree(t, path, rawTree(t, path, "100644", "..", b, "120000", ".git", b, "40000", "odd", odd))
	publish(t, openMain(t, path), Files{"users.crl": []byte("one")})
	want := []string{"100644 blob " + b + "\t..", "120000 blob " + b + "\t.git", "040000 tree " + odd + "\todd"}
	if got := git(t, path, "ls-tree", "main"); !strings.HasPrefix(got, strings.Join(want, "\n")+"\n") {
		t.Errorf("tree:\n%s", got)
	}
}

func TestTooLargeAFile(t *testing.T) {
	path := newBare(t)
	if out, err := shell(path, "truncate -s 65M big"); err != nil {
		t.Fatal(string(out))
	}
	b := git(t, path, "hash-object", "-w", "big")
	pki := rawTree(t, path, "100644", "users.crl", b)
	setTree(t, path, rawTree(t, path, "40000", "site", rawTree(t, path, "40000", "pki", pki)))
	l := openMain(t, path)
	if _, _, err := Read(context.Background(), l, "site/pki"); !errors.Is(err, errTooLarge) {
		t.Fatalf("loose: %v", err)
	}
	git(t, path, "repack", "-adq")
	git(t, path, "prune-packed")
	if _, _, err := Read(context.Background(), l, "site/pki"); !errors.Is(err, errTooLarge) {
		t.Fatalf("packed: %v", err)
	}
}

func TestHostileCommitsAndRefs(t *testing.T) {
	path := newBare(t)
	l := openMain(t, path)
	publish(t, l, Files{"a": []byte("1")})
	tree := git(t, path, "rev-parse", "main^{tree}")
	for _, raw := range []string{
		"", "\n\n", "tree x\n\nm", "parent " + tree + "\n\nm",
		"tree " + tree + "\nparent zz\ncommitter A <a> 1 +0000\n\nm",
	} {
		id := gitIn(t, path, raw, "hash-object", "-t", "commit", "--literally", "-w", "--stdin")
		os.WriteFile(filepath.Join(path, "refs/heads/main"), []byte(id+"\n"), 0o644)
		if _, _, err := Read(context.Background(), l, "site/pki"); !errors.Is(err, ErrHostile) {
			t.Errorf("commit %q: %v", raw, err)
		}
	}
	ref := filepath.Join(path, "refs/heads/main")
	for _, value := range []string{"", "\n", "ref: refs/heads/other\n", "../../etc/passwd", strings.Repeat("a", 5000), tree + "x"} {
		os.WriteFile(ref, []byte(value), 0o644)
		if _, _, err := l.Fetch(context.Background()); !errors.Is(err, ErrHostile) {
			t.Errorf("ref %.50q: %v", value, err)
		}
	}
	os.Rename(ref, ref+"-elsewhere")
	os.WriteFile(ref+"-elsewhere", []byte(tree+"\n"), 0o644)
	os.Symlink(ref+"-elsewhere", ref)
	if _, _, err := l.Fetch(context.Background()); err == nil {
		t.Error("a link was followed")
	}
}

// A commit whose time nobody can read is one push away for every committer. It must not keep ours out,
// nor the history from being read.
func TestUnreadableTimes(t *testing.T) {
	path := newBare(t)
	l := openMain(t, path)
	first := publish(t, l, Files{"a": []byte("1")})
	tree := git(t, path, "rev-parse", "main^{tree}")
	for i, committer := range []string{"A <a>", "A <a> x", "A <a> 99999999999999999999 +0000", "A <a> -1 +0000", "A <a> 999999999999999 +0000", ""} {
		raw := "tree " + tree + "\nparent " + git(t, path, "rev-parse", "main") + "\nauthor A <a> 1 +0000\ncommitter " + committer + "\n\nm"
		id := gitIn(t, path, raw, "hash-object", "-t", "commit", "--literally", "-w", "--stdin")
		git(t, path, "update-ref", "refs/heads/main", id)
		publish(t, l, Files{"a": fmt.Appendf(nil, "%d", i+2)})
		seen := 0
		if err := History(context.Background(), l, "site/pki", func(*Commit) error { seen++; return nil }); err != nil || seen != i+2 {
			t.Errorf("committer %q: %d commits, %v", committer, seen, err)
		}
		tree = git(t, path, "rev-parse", "main^{tree}")
	}
	if out := git(t, path, "merge-base", "--is-ancestor", first, "main"); out != "" {
		t.Error(out)
	}
}

// A loose object whose bytes were exchanged does not pass for what it is named.
func TestObjectsAreCheckedAgainstTheirHash(t *testing.T) {
	path := newBare(t)
	publish(t, openMain(t, path), Files{"a": []byte("right")})
	loose := func(id string) string { return filepath.Join(path, "objects", id[:2], id[2:]) }
	right := loose(git(t, path, "rev-parse", "main:site/pki/a"))
	wrong, err := os.ReadFile(loose(blob(t, path, "wrong")))
	if err != nil {
		t.Fatal(err)
	}
	for _, content := range [][]byte{wrong, wrong[:len(wrong)-3], nil, []byte("garbage")} {
		os.Remove(right)
		os.WriteFile(right, content, 0o444)
		files, _, err := Read(context.Background(), openMain(t, path), "site/pki")
		if err == nil {
			t.Errorf("read %q", files["a"])
		}
	}
	// Writing the same content again replaces the damaged file.
	l := openMain(t, path)
	id := plumbing.ComputeHash(plumbing.BlobObject, []byte("right"))
	if err := l.store(context.Background(), []Object{{plumbing.BlobObject, id, []byte("right")}}); err != nil {
		t.Fatal(err)
	}
	checkRepo(t, path)
}

// panicking stands for a decoder that meets a pack it cannot bear.
type panicking struct{ storer.EncodedObjectStorer }

func (panicking) EncodedObjectSize(plumbing.Hash) (int64, error) { panic("index out of range") }

func TestPanicsBecomeErrors(t *testing.T) {
	o := NewObjects(func() (storer.EncodedObjectStorer, error) { return panicking{}, nil })
	_, err := o.tree(context.Background(), plumbing.NewHash(strings.Repeat("1", 40)))
	if !errors.Is(err, ErrHostile) || !strings.Contains(err.Error(), "index out of range") {
		t.Error(err)
	}
}

func FuzzTree(f *testing.F) {
	f.Add([]byte("100644 a\x00aaaaaaaaaaaaaaaaaaaa40000 b\x00bbbbbbbbbbbbbbbbbbbb"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		parsed, err := parseTree(raw)
		if err != nil {
			return
		}
		if got := parsed.encode(); string(got) != string(raw) {
			t.Errorf("%q came back as %q", raw, got)
		}
		with := parsed.set(entry{modeTree, "new entry", plumbing.ZeroHash})
		if e, n := with.find("new entry"); n != 1 || !e.isTree() {
			t.Error("set did not set")
		}
		if _, n := parsed.find("new entry"); n == 0 && string(with.remove("new entry").encode()) != string(raw) {
			t.Error("set changed others")
		}
	})
}

func FuzzCommit(f *testing.F) {
	f.Add([]byte("tree 1234567890123456789012345678901234567890\ncommitter A <a> 1 +0000\n\nm"))
	f.Fuzz(func(t *testing.T, raw []byte) { parseCommit(raw) })
}
