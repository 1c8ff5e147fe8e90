package gitrepo

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("GITREPO_CHILD"); dir != "" {
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// testSigner is the same key in parent and child.
func testSigner() ssh.Signer {
	signer, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)))
	if err != nil {
		panic(err)
	}
	return signer
}

// eastern is a clock two hours ahead of UTC.
func eastern() time.Time {
	return time.Date(2026, 3, 4, 5, 6, 7, 0, time.FixedZone("", 2*3600))
}

func publisher(r Remote) *Publisher {
	return &Publisher{
		Remote: r, Folder: "site/pki", Signer: testSigner(),
		AuthorName: "Chancery", AuthorEmail: "ca@example.org", Now: eastern,
	}
}

// newBare returns the path of a new bare repository with the branch main.
func newBare(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.git")
	if err := InitBare(path, "main"); err != nil {
		t.Fatal(err)
	}
	return path
}

func openMain(t testing.TB, path string) *Local {
	t.Helper()
	l, err := OpenLocal(path, "main")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// gitCommand is native git without this machine's configuration.
func gitCommand(dir string, args ...string) *exec.Cmd {
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "LC_ALL=C",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_AUTHOR_NAME=Alice", "GIT_AUTHOR_EMAIL=alice@example.org",
		"GIT_COMMITTER_NAME=Alice", "GIT_COMMITTER_EMAIL=alice@example.org",
		"GIT_CONFIG_COUNT=2", "GIT_CONFIG_KEY_0=gc.auto", "GIT_CONFIG_VALUE_0=0",
		"GIT_CONFIG_KEY_1=core.autocrlf", "GIT_CONFIG_VALUE_1=false",
	}
	return cmd
}

func git(t testing.TB, dir string, args ...string) string {
	t.Helper()
	return gitIn(t, dir, "", args...)
}

func gitIn(t testing.TB, dir, stdin string, args ...string) string {
	t.Helper()
	cmd := gitCommand(dir, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, diag bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diag
	if err := cmd.Run(); err != nil {
		t.Fatalf("git %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), diag.String())
	}
	return strings.TrimRight(out.String(), "\n")
}

// checkRepo reads the repository with native git: it is sound, and no lock, no
// draft and no temporary object is left.
func checkRepo(t testing.TB, path string) {
	t.Helper()
	if out, err := gitCommand(path, "fsck", "--strict", "--no-dangling").CombinedOutput(); err != nil ||
		strings.Contains(string(out), "error") || strings.Contains(string(out), "missing") {
		t.Fatalf("git fsck: %v\n%s", err, out)
	}
	for _, pattern := range []string{"refs/heads/*.lock", "chancery-*.ref", "objects/*/tmp_obj_*"} {
		if left, _ := filepath.Glob(filepath.Join(path, pattern)); len(left) > 0 {
			t.Fatalf("left behind: %v", left)
		}
	}
}

// verifyCommit asks native git and ssh-keygen.
func verifyCommit(t testing.TB, path, commit string) {
	t.Helper()
	allowed := filepath.Join(t.TempDir(), "allowed_signers")
	line := `ca@example.org namespaces="git" ` + string(ssh.MarshalAuthorizedKey(testSigner().PublicKey()))
	if err := os.WriteFile(allowed, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	git(t, path, "-c", "gpg.ssh.allowedSignersFile="+allowed, "verify-commit", commit)
}

// publish writes files and expects a commit.
func publish(t testing.TB, r Remote, files Files) string {
	t.Helper()
	commit, changed, err := publisher(r).Publish(context.Background(), func(Files) (Change, error) {
		return Change{Files: files, Message: "crl(users): number 1\n\nCRL-Number: 1\n"}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !changed {
		t.Fatal("nothing changed")
	}
	return commit
}

// rawTree writes a tree object that git itself would not make.
func rawTree(t testing.TB, path string, entries ...string) string {
	t.Helper()
	var raw strings.Builder
	for i := 0; i < len(entries); i += 3 {
		raw.WriteString(entries[i] + " " + entries[i+1] + "\x00")
		for j := 0; j < 40; j += 2 {
			var b byte
			fmt.Sscanf(entries[i+2][j:j+2], "%02x", &b)
			raw.WriteByte(b)
		}
	}
	return gitIn(t, path, raw.String(), "hash-object", "-t", "tree", "--literally", "-w", "--stdin")
}

// setTree makes a commit of a tree the tip of main.
func setTree(t testing.TB, path, tree string) string {
	t.Helper()
	commit := git(t, path, "commit-tree", "-m", "someone else", tree)
	git(t, path, "update-ref", "refs/heads/main", commit)
	return commit
}

func blob(t testing.TB, path, content string) string {
	t.Helper()
	return gitIn(t, path, content, "hash-object", "-w", "--stdin")
}
