package gitrepo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/storer"
)

// Access is how a git server lets us in, in names of files. They are read once.
type Access struct {
	Username     string // for https, with PasswordFile
	PasswordFile string
	ClientCert   string // for https, PEM, with ClientKey
	ClientKey    string
	CA           string // for https, PEM; "" for those of the system
	SSHKey       string // for ssh: the deploy key, as ssh-keygen writes it, without a passphrase
	KnownHosts   string // for ssh: the keys of the host, as ssh keeps them
}

// Limits on what one conversation may take.
const (
	maxPack  = 256 << 20 // octets of a pack for the tip, in memory
	maxWhole = 4 << 30   // octets of a pack of the whole history, on disk
	inTime   = time.Minute
	longer   = 15 // times, for the whole history
)

// way reaches a repository on a server.
type way interface {
	// converse starts one of git's programs there and returns what it says
	// first. When ctx ends, so does the conversation.
	converse(ctx context.Context, service string) (*exchange, error)
}

// exchange is a conversation: the server's list of references, a request, and
// the answer to it.
type exchange struct {
	greeting io.Reader
	ask      func(request []byte) (io.Reader, error)
	quit     func() // says that nothing is asked
	close    func() error
	clock    time.Time // the server's, in whole seconds; zero if it does not tell
}

// Hosted is a branch of a repository on a git server. It keeps no more than
// the files of one folder and the trees above them, in memory, as of the last
// Fetch, and asks the server for what is new since then.
type Hosted struct {
	way    way
	ref    plumbing.ReferenceName
	folder []string
	limit  time.Duration // for one conversation

	mu     sync.Mutex
	known  *known // of the last Fetch; nil before
	pushed plumbing.Hash
	whole  *known // of the last FetchAll
}

// known is what is here of a repository.
type known struct {
	tip     Tip
	from    storer.EncodedObjectStorer
	objects *Objects
}

// OpenHosted prepares to reach a branch, which need not exist yet, of a
// repository at https://HOST/PATH or ssh://USER@HOST/PATH. Nothing is sent
// before the first Fetch. Only files below the folder can be read.
func OpenHosted(address, branch, folder string, a Access) (*Hosted, error) {
	ref, err := branchRef(branch)
	if err != nil {
		return nil, err
	}
	names, err := splitPath(folder)
	if err != nil {
		return nil, fmt.Errorf("folder: %w", err)
	}
	at, err := ParseURL(address)
	if err != nil {
		return nil, err
	}
	if err := a.Check(at.Scheme); err != nil {
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	h := &Hosted{ref: ref, folder: names, limit: inTime}
	if at.Scheme == "https" {
		h.way, err = newHTTPS(at, a)
	} else {
		h.way, err = newSSH(at, a)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	return h, nil
}

// ParseURL reads the address of a repository on a server. It has no password:
// that is in a file.
func ParseURL(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("the repository's address is no URL") // err quotes it, maybe with a password
	}
	bad := func(why string) error { return fmt.Errorf("repository %q: %s", u.Redacted(), why) }
	_, password := u.User.Password()
	odd := func(r rune) bool { return !unicode.IsPrint(r) || strings.ContainsRune(`'"\`, r) }
	switch {
	case u.Scheme != "https" && u.Scheme != "ssh":
		return nil, bad("want https://HOST/PATH or ssh://USER@HOST/PATH")
	case password:
		return nil, bad("the password belongs into a file")
	case u.Hostname() == "" || strings.HasPrefix(u.Hostname(), "-"):
		return nil, bad("no host")
	case strings.Trim(u.Path, "/") == "" || strings.ContainsFunc(u.Path, odd):
		return nil, bad("no path, or one with quotes or unprintable characters")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, bad("nothing may follow the path")
	case u.Scheme == "https" && u.User != nil:
		return nil, bad("the user's name has a key of its own")
	case u.Scheme == "ssh" && u.User.Username() == "":
		return nil, bad("no user")
	}
	return u, nil
}

// Check tells whether these are what a URL of that scheme needs.
func (a Access) Check(scheme string) error {
	web := a.Username + a.PasswordFile + a.ClientCert + a.ClientKey + a.CA
	switch {
	case scheme == "https" && a.SSHKey+a.KnownHosts != "":
		return errors.New("a deploy key and known hosts are for ssh")
	case scheme == "ssh" && web != "":
		return errors.New("name, password, client certificate and CAs are for https")
	case scheme == "ssh" && (a.SSHKey == "" || a.KnownHosts == ""):
		return errors.New("ssh needs a deploy key and the known hosts")
	case (a.Username == "") != (a.PasswordFile == ""):
		return errors.New("name and password go together")
	case (a.ClientCert == "") != (a.ClientKey == ""):
		return errors.New("client certificate and key go together")
	}
	return nil
}

// readSecret reads a file that only we, or a group of ours, can read.
func readSecret(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("reading a secret: %w", err)
	}
	if info.Mode()&0o007 != 0 {
		return nil, fmt.Errorf("everybody can read the secret %s: chmod 0400", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading a secret: %w", err)
	}
	return text, nil
}

// Fetch asks where the branch is, and for what is new there.
func (h *Hosted) Fetch(ctx context.Context) (tip Tip, objects *Objects, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer caught(&err)
	ctx, cancel := within(ctx, h.limit)
	defer cancel()
	e, a, err := h.greet(ctx, "git-upload-pack")
	if err != nil {
		return Tip{}, nil, explain(ctx, err)
	}
	next, err := h.catchUp(ctx, e, a, h.known)
	if err != nil && h.known != nil && ctx.Err() == nil {
		// What is here does not fit what is there: a history that was
		// rewritten, or a folder that came from elsewhere in the tree.
		h.known = nil
		if e, a, err = h.greet(ctx, "git-upload-pack"); err == nil {
			next, err = h.catchUp(ctx, e, a, nil)
		}
	}
	if err != nil {
		return Tip{}, nil, explain(ctx, err)
	}
	h.known = next
	return next.tip, next.objects, nil
}

// tooSlow is why a conversation was ended.
type tooSlow struct{ limit time.Duration }

func (s tooSlow) Error() string        { return fmt.Sprintf("the git server took more than %s", s.limit) }
func (s tooSlow) Is(target error) bool { return target == context.DeadlineExceeded }

func within(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, limit, tooSlow{limit})
}

// explain says that the time was over, where the error says that somebody
// closed the connection: that was us.
func explain(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// caught turns a panic in what reads a server's data into an error.
func caught(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %v", ErrHostile, p)
	}
}

// catchUp brings what is known up to date, or makes it anew from nil, and ends
// the conversation.
func (h *Hosted) catchUp(ctx context.Context, e *exchange, a advert, last *known) (*known, error) {
	defer func() { _ = e.close() }() // only read from
	switch {
	case a.tip.Commit == "":
		e.quit()
		return &known{}, nil
	case last != nil && a.tip == last.tip:
		e.quit()
		return last, nil
	}
	w := wanted{tip: a.tip.Commit, depth: true}
	var old storer.EncodedObjectStorer
	if last != nil && last.tip.Commit != "" {
		w.have, w.depth, old = last.tip.Commit, false, last.from
	}
	p, err := h.download(ctx, e, a, w)
	if err != nil {
		return nil, err
	}
	return h.gather(ctx, a.tip, p, old)
}

func (h *Hosted) greet(ctx context.Context, service string) (*exchange, advert, error) {
	e, err := h.way.converse(ctx, service)
	if err != nil {
		return nil, advert{}, err
	}
	a, err := readAdvert(e.greeting, h.ref)
	if err == nil && len(a.can) > 0 && !a.offers("side-band-64k") {
		err = errors.New("the git server has no side-band-64k")
	}
	if err != nil {
		return nil, advert{}, errors.Join(err, e.close())
	}
	return e, a, nil
}

// download asks for a pack and reads it into memory.
func (h *Hosted) download(ctx context.Context, e *exchange, a advert, w wanted) (*pack, error) {
	reply, err := e.ask(w.encode(a))
	if err != nil {
		return nil, err
	}
	body, err := w.answer(reply, a)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(body, maxPack+1))
	if err != nil {
		return nil, fmt.Errorf("reading the pack: %w", noEOF(err))
	}
	if len(raw) > maxPack {
		return nil, fmt.Errorf("%w: a pack of more than %d octets", ErrHostile, maxPack)
	}
	drain(reply)
	return readPack(ctx, bytes.NewReader(raw), int64(len(raw)))
}

// drain reads what is left, which is next to nothing, so that the connection
// can serve again.
func drain(r io.Reader) { _, _ = io.Copy(io.Discard, io.LimitReader(r, 1<<20)) }

// FetchAll fetches every commit and all that is in them, whoever made them: a
// server cannot be asked for less unless it was set up for it. The pack goes
// to a temporary file without a name; an index of it, about 200 octets an
// object, is in memory. The same tip is not fetched twice.
func (h *Hosted) FetchAll(ctx context.Context) (tip Tip, objects *Objects, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer caught(&err)
	ctx, cancel := within(ctx, longer*h.limit)
	defer cancel()
	next, err := h.fetchAll(ctx)
	if err != nil {
		return Tip{}, nil, explain(ctx, err)
	}
	h.whole = next
	return next.tip, next.objects, nil
}

func (h *Hosted) fetchAll(ctx context.Context) (*known, error) {
	e, a, err := h.greet(ctx, "git-upload-pack")
	if err != nil {
		return nil, err
	}
	defer func() { _ = e.close() }() // only read from
	switch {
	case a.tip.Commit == "":
		e.quit()
		return &known{}, nil
	case h.whole != nil && h.whole.tip == a.tip:
		e.quit()
		return h.whole, nil
	}
	w := wanted{tip: a.tip.Commit}
	reply, err := e.ask(w.encode(a))
	if err != nil {
		return nil, err
	}
	body, err := w.answer(reply, a)
	if err != nil {
		return nil, err
	}
	file, err := os.CreateTemp("", "chancery-history-")
	if err != nil {
		return nil, fmt.Errorf("making room for the history: %w", err)
	}
	// Without a name it goes when nobody has it open any more, however we end.
	if err := os.Remove(file.Name()); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	size, err := io.Copy(file, io.LimitReader(body, maxWhole+1))
	if err == nil && size > maxWhole {
		err = fmt.Errorf("%w: a history of more than %d octets", ErrHostile, int64(maxWhole))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reading the history: %w", noEOF(err)), file.Close())
	}
	p, err := readPack(ctx, file, size)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &known{tip: a.tip, objects: NewObjects(func() (storer.EncodedObjectStorer, error) { return p, nil })}, nil
}

// Push sends the objects with the command to move the branch from old to
// commit, which the server carries out only if the branch is still at old.
func (h *Hosted) Push(ctx context.Context, old Tip, commit plumbing.Hash, objects []Object) (err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer caught(&err)
	sent, err := h.push(ctx, old, commit, objects)
	if err == nil || !sent || errors.Is(err, ErrMoved) {
		return err
	}
	return h.outcome(ctx, old, commit, err)
}

// outcome judges a push that ended with an error after the server had the
// command: where the branch is now says more than how the conversation ended.
func (h *Hosted) outcome(ctx context.Context, old Tip, commit plumbing.Hash, err error) error {
	ctx, cancel := within(ctx, h.limit)
	defer cancel()
	e, a, looked := h.greet(ctx, "git-upload-pack")
	if looked != nil {
		return err
	}
	e.quit()
	_ = e.close() // only read from
	switch {
	case a.tip.Commit == commit.String():
		return nil
	case a.tip != old && (errors.Is(err, ErrRefused) || errors.Is(err, ErrNotStored)):
		return fmt.Errorf("%w: %w", ErrMoved, err)
	}
	return err
}

func (h *Hosted) push(ctx context.Context, old Tip, commit plumbing.Hash, objects []Object) (sent bool, err error) {
	ctx, cancel := within(ctx, h.limit)
	defer cancel()
	e, a, err := h.greet(ctx, "git-receive-pack")
	if err != nil {
		return false, explain(ctx, err)
	}
	defer func() { _ = e.close() }() // the report has said how it ended
	if !a.offers("report-status") {
		err = errors.New("the git server does not report how a push ends")
	} else if a.tip != old {
		err = ErrMoved
	}
	if err != nil {
		e.quit()
		return false, err
	}
	// The zero hash says that there is no branch yet.
	request, err := update(h.ref, plumbing.NewHash(old.Commit), commit, objects)
	if err != nil {
		return false, err
	}
	h.pushed = commit
	reply, err := e.ask(request)
	if err != nil {
		return true, explain(ctx, err)
	}
	r, err := readReport(reply, h.ref)
	if err != nil {
		return true, explain(ctx, err)
	}
	drain(reply) // until the server's hooks are done: some die with the conversation
	return true, r.verdict()
}
