package gitrepo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// overSSH reaches a repository over ssh, as git does: by running git's two
// programs there. The connection is kept for the next time.
type overSSH struct {
	address string
	path    string
	config  *ssh.ClientConfig

	mu     sync.Mutex
	client *ssh.Client
	ended  chan struct{} // closed when the client's connection is
	idle   *time.Timer   // closes the client
}

// maxIdle is how long a connection is kept. A publication has three sessions
// in a row; the next one may be hours away.
const maxIdle = 20 * time.Second

func newSSH(at *url.URL, a Access) (*overSSH, error) {
	port := at.Port()
	if port == "" {
		port = "22"
	}
	s := &overSSH{address: net.JoinHostPort(at.Hostname(), port), path: at.Path}
	if strings.HasPrefix(s.path, "/~") {
		s.path = s.path[1:]
	}
	text, err := readSecret(a.SSHKey)
	if err != nil {
		return nil, err
	}
	key, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return nil, fmt.Errorf("reading the deploy key %s: %w", a.SSHKey, err)
	}
	known, err := knownhosts.New(a.KnownHosts)
	if err != nil {
		return nil, fmt.Errorf("reading the known hosts: %w", err)
	}
	algorithms, err := pinned(known, s.address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.KnownHosts, err)
	}
	s.config = &ssh.ClientConfig{
		User: at.User.Username(), Auth: []ssh.AuthMethod{ssh.PublicKeys(key)},
		HostKeyCallback: known, HostKeyAlgorithms: algorithms,
	}
	return s, nil
}

// nobody's key is on no list, so that the answer names those that are.
type nobody struct{}

func (nobody) Type() string                        { return "none" }
func (nobody) Marshal() []byte                     { return []byte("none") }
func (nobody) Verify([]byte, *ssh.Signature) error { return errors.New("no key") }

// pinned gives the algorithms of a host's known keys. A server has keys of
// several types and would show the one that it likes best, known or not.
func pinned(known ssh.HostKeyCallback, address string) ([]string, error) {
	var mismatch *knownhosts.KeyError
	if err := known(address, &net.TCPAddr{}, nobody{}); !errors.As(err, &mismatch) || len(mismatch.Want) == 0 {
		return nil, fmt.Errorf("no key of %s is known", address)
	}
	var algorithms []string
	for _, k := range mismatch.Want {
		found := []string{k.Key.Type()}
		if k.Key.Type() == ssh.KeyAlgoRSA {
			found = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
		}
		for _, f := range found {
			if !slices.Contains(algorithms, f) {
				algorithms = append(algorithms, f)
			}
		}
	}
	return algorithms, nil
}

// connect logs in.
func (s *overSSH) connect(ctx context.Context) (*ssh.Client, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	c, channels, requests, err := ssh.NewClientConn(conn, s.address, s.config)
	if err != nil {
		_ = conn.Close() // nothing waits for it
		return nil, explain(ctx, fmt.Errorf("logging in to %s: %w", s.address, err))
	}
	return ssh.NewClient(c, channels, requests), nil
}

// session opens a session on the connection, or on a new one if that is dead.
// When ctx ends, the whole connection is closed: nothing less ends a read.
func (s *overSSH) session(ctx context.Context) (*ssh.Session, func() error, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		fresh := s.client == nil
		if fresh {
			client, err := s.connect(ctx)
			if err != nil {
				return nil, nil, err
			}
			s.take(client)
		}
		client := s.client
		if s.idle != nil {
			s.idle.Stop()
			s.idle = nil // for one that fires just now
		}
		stop := context.AfterFunc(ctx, func() { _ = client.Close() })
		session, err := s.open(ctx)
		if err == nil {
			return session, func() error {
				_ = session.Close() // says EOF when the other side was faster
				if !stop() {
					s.forget(client)
					return nil
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				s.idle = time.AfterFunc(maxIdle, s.rest)
				return nil
			}, nil
		}
		stop()
		_ = client.Close() // nothing waits for it
		s.client = nil
		if fresh || ctx.Err() != nil {
			return nil, nil, explain(ctx, fmt.Errorf("opening a session at %s: %w", s.address, err))
		}
	}
}

// take keeps a connection for the next sessions.
func (s *overSSH) take(client *ssh.Client) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = client.Wait() // how it ended, whoever uses it hears
	}()
	s.client, s.ended = client, ended
}

// open opens a session. The library waits without end for one that is asked for while the connection ends, between
// its last look at those who wait and the closing: the goroutine that does so is left behind.
func (s *overSSH) open(ctx context.Context) (*ssh.Session, error) {
	type outcome struct {
		session *ssh.Session
		err     error
	}
	opened, client := make(chan outcome, 1), s.client
	go func() {
		session, err := client.NewSession()
		opened <- outcome{session, err}
	}()
	select {
	case o := <-opened:
		return o.session, o.err
	case <-s.ended:
		return nil, errors.New("the connection ended")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *overSSH) forget(client *ssh.Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = client.Close() // nothing waits for it
	if s.client == client {
		s.client = nil
	}
}

// rest closes a connection that was not used for a while.
func (s *overSSH) rest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idle != nil && s.client != nil {
		_ = s.client.Close() // nothing waits for it
		s.client, s.idle = nil, nil
	}
}

// converse is of way.
func (s *overSSH) converse(ctx context.Context, service string) (*exchange, error) {
	session, end, err := s.session(ctx)
	if err != nil {
		return nil, err
	}
	errs := &clipped{}
	session.Stderr = errs
	to, err := session.StdinPipe()
	if err != nil {
		return nil, errors.Join(err, end())
	}
	from, err := session.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, end())
	}
	// The path has no quote: parseURL refuses one.
	if err := session.Start(service + " '" + s.path + "'"); err != nil {
		return nil, errors.Join(explain(ctx, err), end())
	}
	speaking := &speaker{from: from, ctx: ctx, session: session, said: errs}
	return &exchange{
		greeting: speaking,
		close:    end,
		quit:     func() { _, _ = io.WriteString(to, flush) },
		ask: func(request []byte) (io.Reader, error) {
			if _, err := to.Write(request); err != nil {
				return nil, explain(ctx, fmt.Errorf("sending to %s: %w", s.address, err))
			}
			return speaking, nil
		},
	}, nil
}

// speaker gives what the server sends; where that ends too early, the error
// holds what its programs complained of.
type speaker struct {
	from    io.Reader
	ctx     context.Context
	session *ssh.Session
	said    *clipped
}

func (s *speaker) Read(b []byte) (int, error) {
	n, err := s.from.Read(b)
	if n > 0 || err == nil {
		return n, nil
	}
	if s.ctx.Err() != nil {
		return 0, s.ctx.Err()
	}
	_ = s.session.Wait() // so that all of stderr is here
	if text := s.said.bytes(); len(text) > 0 {
		return 0, fmt.Errorf("the git server says %s: %w", told(text), noEOF(err))
	}
	return 0, err
}

// clipped keeps the first octets that are written to it.
type clipped struct {
	mu   sync.Mutex
	kept bytes.Buffer
}

func (c *clipped) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept.Write(b[:min(len(b), 4*maxTold-min(c.kept.Len(), 4*maxTold))])
	return len(b), nil
}

func (c *clipped) bytes() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.kept.Bytes())
}
