package bench_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-ca/chancery/crl/gitrepo"
)

const publications = 10 // for each repository and each way

// reportGit compares publications over https with git's own commands, in a small and in a large
// repository.
func reportGit(b *testing.B, r *report) {
	rows := [][]string{{"", "wall ms", "CPU ms", "git push wall", "CPU", "same steps wall", "CPU", "wall/push", "CPU/push", "wall/same", "CPU/same"}}
	sizes := []int{10, 20_000}
	servers := make([]*gitServer, len(sizes))
	for i, files := range sizes {
		servers[i] = newGitServer(b, files)
		servers[i].publish(b)
		servers[i].byHand(b)
	}
	ours, push, hand := make([]usage, len(sizes)), make([]usage, len(sizes)), make([]usage, len(sizes))
	for range publications { // in turns, so that a slow moment hits all
		for i, g := range servers {
			ours[i].add(b, func() { g.publish(b) })
			push[i].add(b, g.prepared(b))
			hand[i].add(b, func() { g.byHand(b) })
		}
	}
	for i, files := range sizes {
		o, p, h := ours[i], push[i], hand[i]
		rows = append(rows, []string{
			fmt.Sprintf("%d files", files), o.wallEach(), o.cpuEach(), p.wallEach(), p.cpuEach(), h.wallEach(), h.cpuEach(),
			times(o.wall, p.wall), times(o.cpu, p.cpu), times(o.wall, h.wall), times(o.cpu, h.cpu),
		})
	}
	r.section("commit and push over https", []string{
		"To git http-backend. A publication fetches, commits signed, pushes, and fetches to read back. A git push is that",
		"alone, of a commit that is ready. The same steps are git fetch, add, commit, push, fetch in a clone, unsigned.",
		fmt.Sprintf("%d each, in turns. CPU is of everything: this process, which ends the TLS for all, git and the backend.", publications),
	}, rows)
	r.target("publication in git with 20,000 files over 10: wall", ratio(ours[1].wall, ours[0].wall), 1.5, "x")
	r.target("publication in git with 20,000 files over 10: CPU", ratio(ours[1].cpu, ours[0].cpu), 1.5, "x")
	r.target("publication in git with 20,000 files: wall over a bare git push", ratio(ours[1].wall, push[1].wall), 1.5, "x")
}

// usage sums up what was done so many times.
type usage struct{ wall, cpu time.Duration }

func (u *usage) add(b *testing.B, do func()) {
	cpu, begin := allCPU(b), time.Now()
	do()
	u.wall += time.Since(begin)
	u.cpu += allCPU(b) - cpu
}

func (u *usage) wallEach() string { return milli(u.wall / publications) }
func (u *usage) cpuEach() string  { return milli(u.cpu / publications) }

// allCPU is what this process and its children that ended have used so far.
func allCPU(b *testing.B) time.Duration {
	var children syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_CHILDREN, &children))
	return ownCPU(b) + time.Duration(children.Utime.Nano()+children.Stime.Nano())
}

// gitServer is a repository behind git http-backend and TLS, and a clone.
type gitServer struct {
	clone, ca string
	publisher *gitrepo.Publisher
	count     int
}

func newGitServer(b *testing.B, files int) *gitServer {
	dir := b.TempDir()
	g := &gitServer{clone: filepath.Join(dir, "clone")}
	bare := filepath.Join(dir, "config.git")
	must(b, gitrepo.InitBare(bare, "main"))
	var script strings.Builder
	script.WriteString("commit refs/heads/main\ncommitter Alice <alice@example.org> 1700000000 +0000\ndata 4\nbase\n")
	for i := range files {
		content := fmt.Sprintf("file %d", i)
		fmt.Fprintf(&script, "M 100644 inline modules/m%d/f%d\ndata %d\n%s\n", i%200, i, len(content), content)
	}
	load := exec.Command("git", "--git-dir", bare, "fast-import", "--quiet")
	load.Stdin = strings.NewReader(script.String() + "\n")
	quietly(b, load)
	for _, args := range [][]string{{"repack", "-adq"}, {"config", "receive.autogc", "false"}, {"config", "http.receivepack", "true"}} {
		quietly(b, exec.Command("git", append([]string{"--git-dir", bare}, args...)...))
	}
	program := strings.TrimSpace(string(got(exec.Command("git", "--exec-path").Output())(b)))
	server := httptest.NewTLSServer(&cgi.Handler{
		Path: filepath.Join(program, "git-http-backend"), Stderr: io.Discard, InheritEnv: []string{"PATH"},
		Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "HOME=/nonexistent"},
	})
	b.Cleanup(server.Close)
	g.ca = filepath.Join(dir, "ca.pem")
	must(b, os.WriteFile(g.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	address := server.URL + "/config.git"
	g.git(b, dir, "clone", "-q", bare, g.clone)
	for key, value := range map[string]string{"remote.origin.url": address, "user.name": "Alice", "user.email": "alice@example.org", "gc.auto": "0"} {
		g.git(b, g.clone, "config", key, value)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	must(b, err)
	g.publisher = &gitrepo.Publisher{
		Remote: got(gitrepo.OpenHosted(address, "main", "pki", gitrepo.Access{CA: g.ca}))(b), Folder: "pki", Signer: got(ssh.NewSignerFromKey(key))(b),
		AuthorName: "Bench", AuthorEmail: "bench@example.org", Now: time.Now,
	}
	return g
}

func (g *gitServer) git(b *testing.B, dir string, args ...string) {
	b.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_SSL_CAINFO="+g.ca)
	quietly(b, cmd)
}

// content is new each time, in the files that a publication has.
func (g *gitServer) content() gitrepo.Files {
	g.count++
	files := gitrepo.Files{}
	for _, name := range []string{"users.crl", "users.crl.pem", "bundle.crl.pem", "checkpoint"} {
		files[name] = fmt.Append(nil, name, g.count, "\n")
	}
	return files
}

func (g *gitServer) publish(b *testing.B) {
	_, changed, err := g.publisher.Publish(context.Background(), func(gitrepo.Files) (gitrepo.Change, error) {
		return gitrepo.Change{Files: g.content(), Message: "bench"}, nil
	})
	must(b, err)
	if !changed {
		b.Fatal("nothing was published")
	}
}

func (g *gitServer) fetch(b *testing.B) {
	g.git(b, g.clone, "fetch", "-q", "origin", "main")
	g.git(b, g.clone, "reset", "-q", "--hard", "FETCH_HEAD")
}

func (g *gitServer) commit(b *testing.B) {
	for name, content := range g.content() {
		must(b, os.WriteFile(filepath.Join(g.clone, "pki", name), content, 0o600))
	}
	g.git(b, g.clone, "add", "pki")
	g.git(b, g.clone, "commit", "-q", "-m", "bench")
}

func (g *gitServer) push(b *testing.B) { g.git(b, g.clone, "push", "-q", "origin", "HEAD:main") }

// prepared makes a commit that only has to be pushed.
func (g *gitServer) prepared(b *testing.B) func() {
	g.fetch(b)
	g.commit(b)
	return func() { g.push(b) }
}

func (g *gitServer) byHand(b *testing.B) {
	g.fetch(b)
	g.commit(b)
	g.push(b)
	g.git(b, g.clone, "fetch", "-q", "origin", "main")
}
