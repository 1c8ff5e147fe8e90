package ldapsync

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-ldap/ldap/v3"
)

const (
	connectTime = 5 * time.Second  // for one server, from the first packet to the end of the bind
	opTime      = 10 * time.Second // for one request; a server that is slower counts as lost
	inFlight    = 32               // requests on the connection at the same time

	firstRedial = 100 * time.Millisecond
	lastRedial  = 5 * time.Second

	maxSecret = 64 << 10
	maxAnswer = 16 << 20 // octets that are read after a request was written and before the next
)

// server is one address of the directory.
type server struct{ url, scheme, network, address, host string }

// dialer keeps one connection. Whoever asks first when there is none makes it, and the others wait.
type dialer struct {
	config  LDAPConfig
	servers []server

	connectTime, opTime time.Duration

	slots       chan struct{} // one taken by each request
	reconnected chan struct{}
	ctx         context.Context // ends with Close
	cancel      context.CancelFunc
	running     sync.WaitGroup

	mu       sync.Mutex // guards what follows
	current  *link
	attempt  *attempt // the one that is under way
	failures int
	failed   error     // why the last attempt failed
	redial   time.Time // not before
}

// attempt is a connection in the making. link and err are set when done is closed.
type attempt struct {
	done chan struct{}
	link *link
	err  error
}

// link is one connection, bound.
type link struct {
	conn    *ldap.Conn
	raw     net.Conn
	asserts bool // the server knows the assertion control
}

// close ends everything that waits on the connection. The raw connection goes first, so that nothing
// can hold the other one up; and that one by itself does not notice a loss during StartTLS.
func (l *link) close() {
	_ = l.raw.Close() // whoever waits on it sees it
	if l.conn != nil {
		_ = l.conn.Close()
	}
}

var errClosed = errors.New("the directory was closed")

// How far a connection got, where it is not only the network that failed.
var (
	ErrTLS  = errors.New("TLS")
	ErrBind = errors.New("binding")
)

func newDialer(c LDAPConfig) (*dialer, error) {
	d := &dialer{config: c, connectTime: connectTime, opTime: opTime, slots: make(chan struct{}, inFlight), reconnected: make(chan struct{}, 1)}
	d.config.URLs = slices.Clone(c.URLs)
	for i, address := range c.URLs {
		setting := fmt.Sprintf("urls[%d]", i)
		s, err := parseServer(address)
		if err != nil {
			return nil, badSetting(setting, "directory address %q: %w", address, err)
		}
		if c.BindDN == "" && s.network != "unix" && c.ClientCert == "" {
			return nil, badSetting(setting, "directory address %q: want a client certificate, or a DN to bind as and a password", address)
		}
		d.servers = append(d.servers, s)
	}
	switch {
	case len(d.servers) == 0:
		return nil, errors.New("directory: no address")
	case (c.BindDN == "") != (c.PasswordFile == ""):
		return nil, errors.New("directory: the DN to bind as and its password go together")
	case (c.ClientCert == "") != (c.ClientKey == ""):
		return nil, errors.New("directory: a client certificate and its key go together")
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d, nil
}

// parseServer reads ldaps://host:port, ldap://host:port, or ldapi:// with the path of a socket.
func parseServer(address string) (server, error) {
	if escaped, ok := strings.CutPrefix(address, "ldapi://"); ok {
		path, err := url.PathUnescape(escaped)
		if err == nil && !filepath.IsAbs(path) {
			err = errors.New("want ldapi:///path")
		}
		return server{address, "ldapi", "unix", filepath.Clean(path), ""}, err
	}
	u, err := url.Parse(address)
	if err != nil {
		return server{}, err
	}
	ports := map[string]string{"ldap": ldap.DefaultLdapPort, "ldaps": ldap.DefaultLdapsPort}
	port, known := ports[u.Scheme]
	if !known || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return server{}, errors.New("want ldaps://host, ldap://host or ldapi:///path")
	}
	if u.Port() != "" {
		port = u.Port()
	}
	return server{address, u.Scheme, "tcp", net.JoinHostPort(u.Hostname(), port), u.Hostname()}, nil
}

// Reconnected says that there is a connection again, after another one or after a failure: a server
// may have lost something, or been put back. Several that nobody noticed count as one.
func (d *dialer) Reconnected() <-chan struct{} { return d.reconnected }

// Check asks for what every server answers, and so keeps the connection, or makes one, or finds out
// why there is none.
func (d *dialer) Check(ctx context.Context) error {
	_, err := ask(ctx, d, (*link).root)
	return err
}

// root reads what the server says of itself. It may keep that to itself.
func (l *link) root() (*ldap.SearchResult, error) {
	r, err := l.conn.Search(ldap.NewSearchRequest("", ldap.ScopeBaseObject, ldap.NeverDerefAliases, 1, 0, false,
		"(objectClass=*)", []string{"supportedControl"}, nil))
	if resultCode(err) < ldap.ErrorNetwork {
		err = nil
	}
	return r, err
}

// Close ends the connection and waits for what is under way on it, which fails.
func (d *dialer) Close() error {
	d.cancel()
	d.mu.Lock()
	if d.current != nil {
		d.current.close()
	}
	d.mu.Unlock()
	d.running.Wait()
	return nil
}

// ask makes one request. When ctx ends it returns at once; the request ends by itself in a bounded
// time, and holds its slot until then. Its outcome is not known: like any other lost answer, that is
// mended by looking again.
func ask[T any](ctx context.Context, d *dialer, request func(*link) (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	var none T
	l, err := d.link(ctx)
	if err != nil {
		return none, err
	}
	select {
	case d.slots <- struct{}{}:
	case <-ctx.Done():
		return none, fmt.Errorf("waiting for %d other requests: %w", inFlight, ctx.Err())
	}
	answered := make(chan answer, 1)
	if !d.start(func() {
		defer func() { <-d.slots }()
		value, err := request(l)
		if resultCode(err) >= ldap.ErrorNetwork {
			l.close() // whatever else is under way on it is lost too
		}
		answered <- answer{value, err}
	}) {
		<-d.slots
		return none, errClosed
	}
	select {
	case a := <-answered:
		return a.value, a.err
	case <-ctx.Done():
		return none, fmt.Errorf("waiting for the directory: %w", ctx.Err())
	}
}

// start runs do, unless the dialer is closed.
func (d *dialer) start(do func()) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx.Err() != nil {
		return false
	}
	d.running.Go(do)
	return true
}

// link gives the connection, and makes it if there is none. After a failure everybody is told of it,
// until it is time for the next attempt.
func (d *dialer) link(ctx context.Context) (*link, error) {
	d.mu.Lock()
	if d.ctx.Err() != nil {
		d.mu.Unlock()
		return nil, errClosed
	}
	if d.current != nil && !d.current.conn.IsClosing() {
		defer d.mu.Unlock()
		return d.current, nil
	}
	if d.attempt == nil {
		if time.Now().Before(d.redial) {
			defer d.mu.Unlock()
			return nil, d.failed
		}
		d.attempt = &attempt{done: make(chan struct{})}
		d.running.Go(d.connectAny)
	}
	a := d.attempt
	d.mu.Unlock()
	select {
	case <-a.done:
		return a.link, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("connecting to the directory: %w", ctx.Err())
	}
}

// connectAny tries the servers in their order. It is not bound to the one who asked: others wait too.
func (d *dialer) connectAny() {
	var l *link
	var failed []error
	for _, s := range d.servers {
		ctx, cancel := context.WithTimeout(d.ctx, d.connectTime)
		made, err := d.connect(ctx, s)
		cancel()
		if err == nil {
			l = made
			break
		}
		failed = append(failed, fmt.Errorf("%s: %w", s.url, err))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	a := d.attempt
	d.attempt = nil
	a.link = l
	if l != nil {
		if d.current != nil || d.failures > 0 {
			select {
			case d.reconnected <- struct{}{}:
			default:
			}
		}
		d.current, d.failures, d.failed = l, 0, nil
		if d.ctx.Err() != nil { // Close did not see this one
			l.close()
		}
	} else {
		a.err = errors.Join(failed...)
		d.failed = a.err
		d.redial = time.Now().Add(redialAfter(d.failures, rand.N))
		d.failures++
	}
	close(a.done)
}

// redialAfter is a random time up to a bound that doubles with each failure.
func redialAfter(failures int, random func(time.Duration) time.Duration) time.Duration {
	bound := lastRedial
	if failures < 5 {
		bound = firstRedial << (failures + 1)
	}
	return firstRedial + random(bound-firstRedial)
}

// connect makes one connection and binds. Nothing secret is sent before the server has shown a
// certificate that it may have.
func (d *dialer) connect(ctx context.Context, s server) (*link, error) {
	password, err := d.password()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBind, err)
	}
	secure, err := d.tls(s)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTLS, err)
	}
	var dial net.Dialer
	plain, err := dial.DialContext(ctx, s.network, s.address)
	if err != nil {
		return nil, err
	}
	raw := &guarded{Conn: plain, writeTime: d.opTime}
	l := &link{raw: raw}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	err = d.setUp(ctx, s, l, secure, password)
	if !stop() {
		err = errors.Join(err, ctx.Err())
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (d *dialer) setUp(ctx context.Context, s server, l *link, secure *tls.Config, password string) error {
	if s.scheme == "ldaps" {
		over := tls.Client(l.raw, secure)
		if err := over.HandshakeContext(ctx); err != nil {
			return fmt.Errorf("%w: %w", ErrTLS, err)
		}
		l.conn = ldap.NewConn(over, true)
	} else {
		l.conn = ldap.NewConn(l.raw, false)
	}
	l.conn.SetTimeout(d.connectTime)
	l.conn.Start()
	if s.scheme == "ldap" {
		if err := l.conn.StartTLS(secure); err != nil {
			return fmt.Errorf("%w: StartTLS, without which nothing is sent: %w", ErrTLS, err)
		}
	}
	if d.config.BindDN == "" {
		if err := l.conn.ExternalBind(); err != nil {
			return fmt.Errorf("%w with SASL EXTERNAL: %w", ErrBind, err)
		}
	} else if err := l.conn.Bind(d.config.BindDN, password); err != nil {
		return fmt.Errorf("%w as %s with the password in %s: %w", ErrBind, d.config.BindDN, d.config.PasswordFile, err)
	}
	root, err := l.root()
	if err != nil {
		return fmt.Errorf("asking what the server can do: %w", err)
	}
	for _, e := range root.Entries {
		l.asserts = slices.Contains(e.GetEqualFoldAttributeValues("supportedControl"), assertion)
	}
	l.conn.SetTimeout(d.opTime)
	return nil
}

// password reads the secret of a simple bind. A bind with an empty one succeeds at many servers, as
// nobody (RFC 4513 section 5.1.2), so that it must not come to that.
func (d *dialer) password() (string, error) {
	if d.config.BindDN == "" {
		return "", nil
	}
	text, err := readSecret(d.config.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("reading the password: %w", err)
	}
	secret := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if secret == "" {
		return "", fmt.Errorf("the password in %s is empty", d.config.PasswordFile)
	}
	return secret, nil
}

// readSecret reads a file that not everybody may read.
func readSecret(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("%s is open to everybody (mode %04o); make it 0400", path, info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err == nil && len(text) > maxSecret {
		err = fmt.Errorf("%s has more than %d octets", path, maxSecret)
	}
	return text, err
}

// CheckFiles reads the files that the next connection will need.
func (d *dialer) CheckFiles() error {
	_, failed := d.password()
	for _, s := range d.servers {
		if _, err := d.tls(s); err != nil {
			return errors.Join(failed, err)
		}
	}
	return failed
}

func (d *dialer) tls(s server) (*tls.Config, error) {
	if s.network == "unix" {
		return nil, nil
	}
	c := &tls.Config{ServerName: s.host, MinVersion: tls.VersionTLS12}
	if d.config.CA != "" {
		text, err := os.ReadFile(d.config.CA)
		if err != nil {
			return nil, fmt.Errorf("reading the CAs of the directory: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("no certificate in %s", d.config.CA)
		}
	}
	if d.config.ClientCert != "" {
		own, err := d.ownCertificate()
		if err != nil {
			return nil, fmt.Errorf("reading the client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{own}
	}
	return c, nil
}

func (d *dialer) ownCertificate() (tls.Certificate, error) {
	chain, err := os.ReadFile(d.config.ClientCert)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := readSecret(d.config.ClientKey)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(chain, key)
}

// guarded is a connection whose writes end in a bounded time, and which gives up on an answer that is
// longer than any we ask for.
type guarded struct {
	net.Conn
	writeTime time.Duration
	read      atomic.Int64 // since the last write
}

func (g *guarded) Write(b []byte) (int, error) {
	g.read.Store(0)
	if err := g.SetWriteDeadline(time.Now().Add(g.writeTime)); err != nil {
		return 0, err
	}
	return g.Conn.Write(b)
}

func (g *guarded) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	if g.read.Add(int64(n)) > maxAnswer {
		return 0, fmt.Errorf("the directory answers with more than %d octets", maxAnswer)
	}
	return n, err
}
