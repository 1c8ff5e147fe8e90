package bench_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/crl/gitrepo"
	"github.com/chancery-ca/chancery/store"
)

const (
	singles = 100 // revocations measured one by one
	names   = 100 // names revoked at once, sameName certificates each
)

// reportRevokes measures from the call to the durable revocation, to the list in git that holds it,
// and to the answer, beside a bare publication in the same repository.
func reportRevokes(b *testing.B, r *report, s *installation) {
	s.fill(b, (names+20)*sameName)
	v := newRevoker(b, s)
	rows := [][]string{{"", "durable p50", "p99", "in git p50", "p99", "answered p50", "p99", "bare push p50", "p99", "in git/push", "CPU us"}}
	rows = append(rows, v.oneByOne(b, "one by one, from 0 revoked"), v.atOnce(b, 8))
	begin := time.Now()
	for n := range int64(names) {
		v.revoke(b, map[string]any{"cn": name(n * sameName), "max": sameName})
	}
	took := time.Since(begin)
	rows = append(rows, v.oneByOne(b, fmt.Sprintf("one by one, from %d", v.listed(b))), v.atOnce(b, 8))
	r.section("revoke, ms", []string{
		"An answer waits for the list to be in git, for 5 s at most. A bare push is a signed commit of one",
		"small file to the same repository by the same code, read back as well, in turns with the revocations.",
		fmt.Sprintf("In between %d calls revoked %d certificates in %.1f s, each list published.", names, names*sameName, took.Seconds()),
	}, rows)
	time.Sleep(time.Second)
	r.noteMemory(b, s, fmt.Sprintf("after %d revocations", v.listed(b)))
}

type revoker struct {
	*installation
	client *client
	books  *store.Store
	bare   *gitrepo.Publisher
	serial []cert.Serial // still to be revoked one by one
}

func newRevoker(b *testing.B, s *installation) *revoker {
	v := &revoker{installation: s, client: s.client(b, 8)}
	v.books = got(store.OpenReader(context.Background(), s.path("state", "store.db"), time.Now))(b)
	b.Cleanup(func() { must(b, v.books.Close()) })
	_, key, err := ed25519.GenerateKey(rand.Reader)
	must(b, err)
	v.bare = &gitrepo.Publisher{
		Remote: got(gitrepo.OpenLocal(s.path("config.git"), "main"))(b), Folder: "bench", Signer: got(ssh.NewSignerFromKey(key))(b),
		AuthorName: "Bench", AuthorEmail: "bench@example.org", Now: time.Now,
	}
	// The newest ones: the names in front are revoked by name.
	found := got(v.books.Find(context.Background(), store.Query{Purpose: cert.User, States: []store.State{store.StateLive}}))(b)
	for _, c := range found[len(found)-1000:] {
		v.serial = append(v.serial, c.Serial)
	}
	return v
}

func (v *revoker) take() cert.Serial {
	serial := v.serial[0]
	v.serial = v.serial[1:]
	return serial
}

func (v *revoker) revoke(b *testing.B, params map[string]any) {
	_, err := v.client.call(jsonCodec(), "ca.revoke", params)
	must(b, err)
}

// oneByOne follows revocations, each with a bare push before it.
func (v *revoker) oneByOne(b *testing.B, title string) []string {
	var durable, visible, answered, pushes []time.Duration
	daemon, room := v.cpu(b)
	for range singles {
		pushes = append(pushes, v.push(b))
		d, g, a := v.follow(b)
		durable, visible, answered = append(durable, d), append(visible, g), append(answered, a)
	}
	daemonAfter, roomAfter := v.cpu(b)
	row := []string{title}
	for _, waits := range [][]time.Duration{durable, visible, answered, pushes} {
		slices.Sort(waits)
		row = append(row, milli(quantile(waits, 0.5)), milli(quantile(waits, 0.99)))
	}
	over := ratio(quantile(visible, 0.5), quantile(pushes, 0.5))
	return append(row, fmt.Sprintf("%.1fx", over), micro((daemonAfter+roomAfter-daemon-room)/singles))
}

func (v *revoker) push(b *testing.B) time.Duration {
	begin := time.Now()
	_, changed, err := v.bare.Publish(context.Background(), func(gitrepo.Files) (gitrepo.Change, error) {
		return gitrepo.Change{Files: gitrepo.Files{"file": fmt.Append(nil, begin.UnixNano(), "\n")}, Message: "bench"}, nil
	})
	must(b, err)
	if !changed {
		b.Fatal("nothing was pushed")
	}
	return time.Since(begin)
}

// follow revokes one certificate and watches the books and the branch meanwhile.
func (v *revoker) follow(b *testing.B) (durable, visible, answered time.Duration) {
	serial := v.take()
	tip := v.tip(b)
	begin := time.Now()
	done := make(chan error, 1)
	go func() {
		_, err := v.client.call(jsonCodec(), "ca.revoke", map[string]any{"serial": string(serial)})
		answered = time.Since(begin)
		done <- err
	}()
	for ; visible == 0; time.Sleep(500 * time.Microsecond) {
		if durable == 0 {
			if c := got(v.books.Find(context.Background(), store.Query{Serial: serial}))(b); c[0].State == store.StateRevoked {
				durable = time.Since(begin)
			}
		}
		if now := v.tip(b); now != tip {
			moved := time.Since(begin)
			tip = now
			if slices.Contains(v.list(b, tip), serial) {
				visible = moved
			}
		}
		if time.Since(begin) > time.Minute {
			b.Fatal("the revocation is not in git")
		}
	}
	must(b, <-done)
	return max(durable, 1), visible, answered
}

// tip is where the branch is.
func (v *revoker) tip(b *testing.B) string {
	for {
		text, err := os.ReadFile(v.path("config.git", "refs", "heads", "main"))
		if !errors.Is(err, os.ErrNotExist) { // between two renames
			must(b, err)
			return strings.TrimSpace(string(text))
		}
	}
}

// list gives the serial numbers in the list of users at a commit, as git has it and crypto/x509 reads it.
func (v *revoker) list(b *testing.B, commit string) []cert.Serial {
	der := got(exec.Command("git", "--git-dir", v.path("config.git"), "show", commit+":pki/users.crl").Output())(b)
	var serials []cert.Serial
	for _, e := range got(x509.ParseRevocationList(der))(b).RevokedCertificateEntries {
		serials = append(serials, cert.SerialOf(e.SerialNumber))
	}
	return serials
}

func (v *revoker) listed(b *testing.B) int { return len(v.list(b, v.tip(b))) }

// atOnce revokes as fast as so many callers are answered.
func (v *revoker) atOnce(b *testing.B, callers int) []string {
	serials := make(chan cert.Serial, 200)
	for range cap(serials) {
		serials <- v.take()
	}
	l := v.load(b, callers, func(n int64) bool { return n <= int64(cap(serials)) }, func(c *client) error {
		_, err := c.call(jsonCodec(), "ca.revoke", map[string]any{"serial": string(<-serials)})
		return err
	})
	return []string{
		fmt.Sprintf("%d callers at once: %.0f per s", callers, l.rate()), "", "", "", "", l.quantile(0.5), l.quantile(0.99), "", "", "", micro(l.cpu()),
	}
}
