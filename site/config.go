// Package site is one installation: its configuration, how its parts are made and wired, and the
// checks over all of them.
//
// It imports everything below it but the key room, which is another process: init and up run the other
// binaries, found beside their own.
package site

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/credential"
	"github.com/chancery-ca/chancery/rpc"
)

// ConfigName is the configuration's file name in an installation's folder.
const ConfigName = "chancery.yaml"

const maxConfig = 256 << 10

// Config is chancery.yaml: strict YAML without anchors. Paths are relative to the file. Every key is
// needed unless it says otherwise.
type Config struct {
	// Listen is the address of the RPC, HOST:PORT.
	Listen string `yaml:"listen"`
	// KeyRoom is the key room's Unix socket.
	KeyRoom string `yaml:"keyroom"`
	// State is the folder of the store.
	State string `yaml:"state"`
	// Secrets is the folder of the service's own keys, each a file of mode 0400.
	Secrets string `yaml:"secrets"`
	// Trust is the folder with root.pem, chain.pem and log.pub.
	Trust string `yaml:"trust"`
	// TLS12 also allows TLS 1.2 at the RPC, for old clients. Optional; false.
	TLS12 bool `yaml:"tls12,omitempty"`
	// Health is the loopback address where monitors read /livez, /readyz and /metrics, 127.0.0.1:PORT or
	// [::1]:PORT. Optional; without it nothing listens.
	Health string `yaml:"health,omitempty"`
	// Directory is where certificates of users and servers are published. Optional; without it they
	// are not published.
	Directory *DirectoryConfig `yaml:"directory,omitempty"`
	// Git is the configuration repository that the lists go to.
	Git GitConfig `yaml:"git"`
	// Callers may use the RPC, each within its grants. It may be empty.
	Callers []rpc.Caller `yaml:"callers"`
	// ForeignCAs are those by whose certificates callers may come in that name them in a credential. Optional.
	ForeignCAs []rpc.ForeignCA `yaml:"foreign_cas,omitempty"`

	// Path is the absolute path of the file.
	Path string `yaml:"-"`
	// SHA256 is of the file as it was read, lower-case hex.
	SHA256 string `yaml:"-"`

	loaded bool // Secrets are credentials of systemd
}

// ErrConfig marks a configuration that cannot be used.
var ErrConfig = errors.New("configuration")

// LoadConfig reads chancery.yaml at path. Its errors are Problems, which show the line and the column.
func LoadConfig(path string) (Config, error) {
	c, _, err := readConfig(path)
	return c, err
}

// readOutline reads where everything is, without the files that are named and without what only the service
// itself can resolve. An installation that was just restored has no more.
func readOutline(path string) (Config, error) {
	c, _, err := parseConfig(path)
	if err == nil {
		_ = c.resolve(filepath.Dir(c.Path)) // a credential is there where the service runs
	}
	return c, err
}

func readConfig(path string) (c Config, d *document, err error) {
	if c, d, err = parseConfig(path); err != nil {
		return c, d, err
	}
	return c, d, d.problems(errors.Join(c.resolve(filepath.Dir(c.Path)), d.unsaid(c), c.check()))
}

func parseConfig(path string) (c Config, d *document, err error) {
	d = &document{file: path}
	abs, err := filepath.Abs(path)
	if err != nil {
		return c, d, d.problems(err)
	}
	if d.text, err = readText(abs); errors.Is(err, fs.ErrNotExist) {
		err = errors.New("it is not there; chancery init makes an installation")
	}
	if err == nil {
		d.places, err = locate(d.text)
	}
	if err == nil {
		err = yaml.NewDecoder(bytes.NewReader(d.text), yaml.Strict()).Decode(&c)
	}
	if err != nil {
		return c, d, d.problems(err)
	}
	c.Path, c.SHA256 = abs, cert.SHA256(d.text)
	return c, d, nil
}

func readText(path string) ([]byte, error) {
	text, err := readAtMost(path, maxConfig)
	if err != nil {
		return nil, err
	}
	if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
		return nil, errors.New("it is not text in UTF-8")
	}
	return text, checkNesting(text)
}

// readAtMost reads a file that somebody has named, which may be a device or a pipe without an end.
func readAtMost(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("it has more than %d octets", most)
	}
	return text, err
}

// Far above what chancery.yaml needs.
const (
	maxNesting = 64       // brackets and braces that are open at once
	maxLine    = 16 << 10 // octets
)

// checkNesting refuses what the YAML parser takes gigabytes for: its memory grows with the square of the depth,
// and every way to nest but brackets takes length within a line.
func checkNesting(text []byte) error {
	open, number := 0, 0
	for line := range bytes.Lines(text) {
		number++
		if len(line) > maxLine {
			return fmt.Errorf("line %d has %d octets; at most %d", number, len(line), maxLine)
		}
		if bytes.HasPrefix(bytes.TrimSpace(line), []byte("#")) {
			continue
		}
		for _, c := range line {
			switch c {
			case '[', '{':
				open++
			case ']', '}':
				open = max(0, open-1)
			}
			if open > maxNesting {
				return fmt.Errorf("line %d is nested more than %d deep", number, maxNesting)
			}
		}
	}
	return nil
}

// locate finds where each key is, in one document without anchors and aliases.
func locate(text []byte) (map[string]*token.Token, error) {
	file, err := parser.ParseBytes(text, 0)
	switch {
	case err != nil:
		return nil, err
	case len(file.Docs) != 1:
		return nil, fmt.Errorf("%d documents; want one", len(file.Docs))
	case file.Docs[0].Body == nil:
		return nil, errors.New("it is empty")
	}
	s := locator{places: make(map[string]*token.Token)}
	ast.Walk(&s, file.Docs[0])
	if s.alias != nil {
		return nil, &yaml.SyntaxError{Message: "anchors and aliases are not accepted", Token: s.alias}
	}
	return s.places, nil
}

// pathKey is a key that holds a path.
type pathKey struct {
	key    string
	path   *string
	secret bool // it may be a credential of systemd
}

func (c *Config) paths() []pathKey {
	keys := []pathKey{{"keyroom", &c.KeyRoom, false}, {"state", &c.State, false}, {"secrets", &c.Secrets, true}, {"trust", &c.Trust, false}}
	keys = append(keys, c.Git.paths()...)
	if c.Directory != nil {
		keys = append(keys, c.Directory.paths()...)
	}
	return append(keys, c.foreignPaths()...)
}

func (c *Config) foreignPaths() []pathKey {
	var keys []pathKey
	for i := range c.ForeignCAs {
		keys = append(keys, pathKey{fmt.Sprintf("foreign_cas[%d].file", i), &c.ForeignCAs[i].File, false})
	}
	return keys
}

// namedFiles are the files with credentials and CAs that chancery.yaml names.
func (c Config) namedFiles() []string {
	keys := append(c.Git.paths(), c.foreignPaths()...)
	if c.Directory != nil {
		keys = append(keys, c.Directory.paths()...)
	}
	var named []string
	for _, k := range keys {
		if *k.path != "" && k.key != "git.repository" {
			named = append(named, *k.path)
		}
	}
	return named
}

// resolve makes every path absolute.
func (c *Config) resolve(base string) error {
	c.loaded = credential.Named(c.Secrets)
	var failed []error
	for _, k := range c.paths() {
		switch {
		case *k.path == "":
		case credential.Named(*k.path) && !k.secret:
			failed = append(failed, wrong(k.key, "%s: only a file with a secret can be a credential", k.key))
		default:
			path, err := credential.Path(*k.path, base)
			if err != nil {
				failed = append(failed, wrong(k.key, "%s: %w", k.key, err))
				continue
			}
			*k.path = path
		}
	}
	if c.Directory != nil {
		c.Directory.absolute(base)
	}
	return errors.Join(failed...)
}

// check looks at what can be judged without the files.
func (c *Config) check() error {
	var failed []error
	for _, needed := range []struct{ key, value string }{
		{"listen", c.Listen}, {"keyroom", c.KeyRoom}, {"state", c.State}, {"secrets", c.Secrets}, {"trust", c.Trust},
	} {
		if needed.value == "" {
			failed = append(failed, wrong(needed.key, "%s is missing", needed.key))
		}
	}
	if _, err := splitListen(c.Listen); c.Listen != "" && err != nil {
		failed = append(failed, wrong("listen", "listen: %w", err))
	}
	_, err := c.policy()
	failed = append(failed, c.checkHealth(), c.Git.check(), err)
	if c.Directory != nil {
		failed = append(failed, c.Directory.check())
	}
	return errors.Join(failed...)
}

// splitListen checks HOST:PORT and gives the host. Port 0 would be another one at each start, and
// callers have to know it.
func splitListen(address string) (host string, err error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("want HOST:PORT: %w", err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("%q is not a port; want 1 to 65535", port)
	}
	return host, nil
}

// secret is one of the service's own files. systemd has no folders of credentials: what it loads from one
// is called by the folder's name and the file's.
func (c *Config) secret(name string) string {
	if c.loaded {
		return c.Secrets + "_" + name
	}
	return filepath.Join(c.Secrets, name)
}

func (c *Config) trusted(name string) string { return filepath.Join(c.Trust, name) }

// LogKey is the verifier key of the log that the installation pins.
func (c *Config) LogKey() (string, error) {
	text, err := os.ReadFile(c.trusted("log.pub"))
	if err != nil {
		return "", fmt.Errorf("reading the log's key: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// StorePath is the database.
func (c *Config) StorePath() string { return filepath.Join(c.State, "store.db") }
