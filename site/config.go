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

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/rpc"
)

// ConfigName is the configuration's file name in an installation's folder.
const ConfigName = "chancery.yaml"

const maxConfig = 1 << 20

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
	// Directory is where certificates of users and servers are published. Optional; without it they
	// are not published.
	Directory *DirectoryConfig `yaml:"directory,omitempty"`
	// Git is the configuration repository that the lists go to.
	Git GitConfig `yaml:"git"`
	// Callers may use the RPC, each within its grants.
	Callers []rpc.Caller `yaml:"callers"`

	// Path is the absolute path of the file.
	Path string `yaml:"-"`
	// SHA256 is of the file as it was read, lower-case hex.
	SHA256 string `yaml:"-"`
}

// ErrConfig marks a configuration that cannot be used.
var ErrConfig = errors.New("configuration")

// LoadConfig reads chancery.yaml at path. Errors show the line and the column.
func LoadConfig(path string) (Config, error) {
	var c Config
	abs, err := filepath.Abs(path)
	if err != nil {
		return c, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	info, err := os.Stat(abs)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return c, fmt.Errorf("%w: there is no %s; chancery init makes an installation", ErrConfig, path)
		}
		return c, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if info.Size() > maxConfig {
		return c, fmt.Errorf("%w: %s has %d octets; at most %d", ErrConfig, path, info.Size(), maxConfig)
	}
	text, err := os.ReadFile(abs)
	if err != nil {
		return c, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
		return c, fmt.Errorf("%w: %s is not text in UTF-8", ErrConfig, path)
	}
	if err := refuseAliases(text); err != nil {
		return c, fmt.Errorf("%w: %s: %w", ErrConfig, path, err)
	}
	if err := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict()).Decode(&c); err != nil {
		return c, fmt.Errorf("%w: %s:\n%s", ErrConfig, path, yaml.FormatError(err, false, true))
	}
	c.Path, c.SHA256 = abs, cert.SHA256(text)
	c.absolute(filepath.Dir(abs))
	if err := c.check(); err != nil {
		return c, fmt.Errorf("%w: %s: %w", ErrConfig, path, err)
	}
	return c, nil
}

// aliases looks for anchors and aliases: they let a small file mean a huge one.
type aliases struct{ found ast.Node }

func (a *aliases) Visit(n ast.Node) ast.Visitor {
	if t := n.Type(); t == ast.AnchorType || t == ast.AliasType {
		a.found = n
	}
	return a
}

func refuseAliases(text []byte) error {
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return errors.New(yaml.FormatError(err, false, true))
	}
	if len(file.Docs) != 1 {
		return fmt.Errorf("%d documents; want one", len(file.Docs))
	}
	if file.Docs[0].Body == nil {
		return errors.New("it is empty")
	}
	var seen aliases
	ast.Walk(&seen, file.Docs[0])
	if seen.found != nil {
		at := seen.found.GetToken().Position
		return fmt.Errorf("line %d, column %d: anchors and aliases are not accepted", at.Line, at.Column)
	}
	return nil
}

func (c *Config) absolute(base string) {
	paths := []*string{&c.KeyRoom, &c.State, &c.Secrets, &c.Trust}
	paths = append(paths, c.Git.paths()...)
	if c.Directory != nil {
		paths = append(paths, c.Directory.paths()...)
		c.Directory.absolute(base)
	}
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(base, *p)
		}
	}
}

func (c *Config) check() error {
	for _, needed := range []struct{ key, value string }{
		{"listen", c.Listen}, {"keyroom", c.KeyRoom}, {"state", c.State}, {"secrets", c.Secrets}, {"trust", c.Trust},
	} {
		if needed.value == "" {
			return fmt.Errorf("%s is missing", needed.key)
		}
	}
	if _, err := splitListen(c.Listen); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if err := c.Git.check(); err != nil {
		return err
	}
	if c.Directory == nil {
		return nil
	}
	return c.Directory.check()
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

func (c *Config) secret(name string) string  { return filepath.Join(c.Secrets, name) }
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
