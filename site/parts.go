package site

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/crypto/ssh"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/ca/signer"
	"github.com/chancery-ca/chancery/crl"
	"github.com/chancery-ca/chancery/crl/gitrepo"
	"github.com/chancery-ca/chancery/ldapsync"
	"github.com/chancery-ca/chancery/store"
)

// parts are what both the daemon and init work with: the store, the line to the key room, and the three
// pieces of work on top of them.
type parts struct {
	config    Config
	log       *zap.Logger
	lock      *os.File
	store     *store.Store
	signer    *signer.Client
	authority *ca.Authority
	lists     *crl.Loop
	directory *ldapsync.Loop // nil without a directory
	entries   *switched      // what the loop writes to; nil without a directory
	publisher *gitrepo.Publisher
	own       atomic.Pointer[identity] // set by the daemon; asked for at each connection
	inForce   atomic.Pointer[Config]   // the configuration as it was read last
	health    *health                  // nil but in the daemon
}

// open opens an installation whose key room is running. Missing state is an error.
func open(ctx context.Context, c Config, log *zap.Logger) (*parts, error) {
	lock, err := lockState(c.State)
	if err != nil {
		return nil, err
	}
	s, err := store.Open(ctx, c.StorePath(), time.Now)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	p := &parts{config: c, log: log, lock: lock, store: s}
	p.inForce.Store(&c)
	if err := p.wire(ctx); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *parts) wire(ctx context.Context) error {
	var err error
	if p.signer, err = signer.Dial(ctx, p.config.KeyRoom, p.store); err != nil {
		return err
	}
	if err := p.config.knows(p.signer.Hello()); err != nil {
		return err
	}
	if err := p.openDirectory(); err != nil {
		return err
	}
	o := ca.Options{Store: p.store, Signer: p.signer, Rand: rand.Reader, Reserved: p.ownHosts}
	if p.entries != nil {
		o.Directory = finder{p.entries}
	}
	if p.authority, err = ca.New(o); err != nil {
		return err
	}
	if p.publisher, err = p.config.publisher(p.signer.Hello().Origin); err != nil {
		return err
	}
	p.lists, err = crl.New(crl.Options{Store: p.store, Signer: p.signer, Publisher: p.publisher, Log: p.log})
	return err
}

// knows refuses a key room that signs another log than the one that the installation pinned.
func (c *Config) knows(room signer.Hello) error {
	pinned, err := c.LogKey()
	if err != nil {
		return err
	}
	if room.LogKey != pinned {
		return fmt.Errorf("the key room at %s signs the log with %s, and %s pins another key: this is not the key room of this installation",
			c.KeyRoom, room.LogKey, c.trusted("log.pub"))
	}
	return nil
}

func (p *parts) openDirectory() error {
	d := p.config.Directory
	if d == nil {
		return nil
	}
	opened, err := d.open()
	if err != nil {
		return err
	}
	p.entries = newSwitched(opened)
	p.directory = &ldapsync.Loop{Store: p.store, Directory: p.entries, Log: p.log, Now: time.Now}
	return nil
}

// finder asks the directory in the terms of package ca.
type finder struct{ directory ldapsync.Directory }

func (f finder) Find(ctx context.Context, purpose cert.Purpose, n name.Name) (string, error) {
	entry, err := f.directory.Find(ctx, purpose, n)
	switch {
	case errors.Is(err, ldapsync.ErrNoEntry):
		return "", ca.ErrNoEntry
	case errors.Is(err, ldapsync.ErrManyEntries):
		return "", ca.ErrManyEntries
	}
	return entry, err
}

// commitKey is the service's own SSH key, which signs commits.
func (c *Config) commitKey() (ssh.Signer, error) {
	text, err := os.ReadFile(c.secret(gitKeyFile))
	if err != nil {
		return nil, fmt.Errorf("reading the key that signs commits: %w", err)
	}
	key, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return nil, fmt.Errorf("reading the key that signs commits, %s: %w", c.secret(gitKeyFile), err)
	}
	return key, nil
}

func (c *Config) publisher(origin string) (*gitrepo.Publisher, error) {
	key, err := c.commitKey()
	if err != nil {
		return nil, err
	}
	remote, err := c.Git.Open()
	if err != nil {
		return nil, err
	}
	return &gitrepo.Publisher{
		Remote: remote, Folder: c.Git.Folder, Signer: key,
		AuthorName: "Chancery", AuthorEmail: authorEmail(origin), Now: time.Now,
	}, nil
}

func authorEmail(origin string) string {
	host, _, _ := strings.Cut(origin, "/")
	return "chancery@" + host
}

func (p *parts) close() error {
	if p.signer != nil {
		p.signer.Close()
	}
	var err error
	if p.entries != nil {
		err = p.entries.Close()
	}
	return errors.Join(err, p.store.Close(), p.lock.Close())
}
