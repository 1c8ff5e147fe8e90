package site

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ldapsync"
)

// DirectoryConfig says where certificates are published: a file of entries, or LDAP servers.
type DirectoryConfig struct {
	// URL is ldif:///absolute/path, ldif:relative/path, ldaps://HOST, ldap://HOST, which always means
	// StartTLS, or ldapi:///path of a socket. This or URLs.
	URL string `yaml:"url,omitempty"`
	// URLs are several LDAP servers of one directory, tried in this order.
	URLs []string `yaml:"urls,omitempty"`
	// Base is the DN below which the entries are. Not needed with User.Base and Server.Base.
	Base string `yaml:"base,omitempty"`
	// Create makes an entry where none is, in a file. Optional; false: such a request is refused.
	Create bool `yaml:"create,omitempty"`

	// What follows is for LDAP.

	// CA is a file with the CAs of the servers' certificates, PEM. Optional; those of the system.
	CA string `yaml:"ca,omitempty"`
	// ClientCert and ClientKey are files, PEM, for SASL EXTERNAL over TLS.
	ClientCert string `yaml:"client_cert,omitempty"`
	ClientKey  string `yaml:"client_key,omitempty"`
	// BindDN and PasswordFile are for a simple bind. Optional; without them the bind is SASL EXTERNAL.
	BindDN       string `yaml:"bind_dn,omitempty"`
	PasswordFile string `yaml:"password_file,omitempty"`
	// User and Server say how the entry of a name is found. Optional.
	User   PlaceConfig `yaml:"user,omitempty"`
	Server PlaceConfig `yaml:"server,omitempty"`
}

// PlaceConfig says where the entries of one purpose are.
type PlaceConfig struct {
	// Base is the DN that they are below. Optional; ou=people or ou=hosts below the base of all.
	Base string `yaml:"base,omitempty"`
	// Filter finds the entry of a name, which stands for {cn} in it. Optional; by the common name,
	// among objects of the class inetOrgPerson or device.
	Filter string `yaml:"filter,omitempty"`
}

// directory is what certificates are published to.
type directory interface {
	ldapsync.Directory
	Check(ctx context.Context) error // tells whether it is there
	Close() error
}

func (d *DirectoryConfig) paths() []pathKey {
	return []pathKey{
		{"directory.ca", &d.CA, false}, {"directory.client_cert", &d.ClientCert, false},
		{"directory.client_key", &d.ClientKey, true}, {"directory.password_file", &d.PasswordFile, true},
	}
}

// absolute makes the path in an ldif URL absolute.
func (d *DirectoryConfig) absolute(base string) {
	if path, ok := strings.CutPrefix(d.URL, "ldif:"); ok && path != "" && !strings.HasPrefix(path, "//") {
		if !filepath.IsAbs(path) {
			path = filepath.Join(base, path)
		}
		d.URL = (&url.URL{Scheme: "ldif", Path: path}).String()
	}
}

// Where names the directory.
func (d *DirectoryConfig) Where() string { return strings.Join(d.urls(), " ") }

func (d *DirectoryConfig) urls() []string {
	if d.URL != "" {
		return []string{d.URL}
	}
	return d.URLs
}

func (d *DirectoryConfig) check() error {
	if (d.URL == "") == (len(d.URLs) == 0) || d.Base == "" && (d.User.Base == "" || d.Server.Base == "") {
		return wrong("directory", "directory: url and base are needed")
	}
	if d.isFile() {
		if d.Base == "" || d.ldap() != (ldapKeys{}) {
			return wrong("directory", "directory: a file needs base, and may have create; the other keys are for LDAP")
		}
	} else if d.Create {
		return wrong("directory.create", "directory.create is for a file; in LDAP, entries are made by those who keep it")
	}
	opened, err := d.open()
	if err != nil {
		return wrong(d.blame(err), "%w", err)
	}
	return opened.Close()
}

// blame gives the key of what the directory would not be opened with.
func (d *DirectoryConfig) blame(err error) string {
	var setting *ldapsync.SettingError
	switch {
	case !errors.As(err, &setting):
		return "directory"
	case strings.HasPrefix(setting.Setting, "urls") && d.URL != "":
		return "directory.url"
	case setting.Setting == "user.base" && d.User.Base == "", setting.Setting == "server.base" && d.Server.Base == "":
		return "directory.base"
	}
	return "directory." + setting.Setting
}

// isFile tells whether the directory is a file and not one or more servers.
func (d *DirectoryConfig) isFile() bool { return !strings.HasPrefix(d.URL, "ldap") && len(d.URLs) == 0 }

// file is the path of the directory if it is a file.
func (d *DirectoryConfig) file() (path string, ok bool) {
	if d == nil || !d.isFile() {
		return "", false
	}
	u, err := url.Parse(d.URL)
	if err != nil || u.Scheme != "ldif" {
		return "", false
	}
	return u.Path, true
}

// ldapKeys are the keys that a file has no use for.
type ldapKeys struct {
	CA, ClientCert, ClientKey, BindDN, PasswordFile string
	User, Server                                    PlaceConfig
}

func (d *DirectoryConfig) ldap() ldapKeys {
	return ldapKeys{d.CA, d.ClientCert, d.ClientKey, d.BindDN, d.PasswordFile, d.User, d.Server}
}

// open opens the directory, without asking it anything yet.
func (d *DirectoryConfig) open() (directory, error) {
	if d.isFile() {
		ldif, err := ldapsync.OpenLDIF(d.URL, d.Create, d.Base)
		if err != nil {
			return nil, err // not a directory that holds a nil
		}
		return ldif, nil
	}
	servers, err := ldapsync.OpenLDAP(ldapsync.LDAPConfig{
		URLs: d.urls(), CA: d.CA, ClientCert: d.ClientCert, ClientKey: d.ClientKey,
		BindDN: d.BindDN, PasswordFile: d.PasswordFile, Places: d.places(),
	})
	if err != nil {
		return nil, err
	}
	return servers, nil
}

// checkFiles reads the files that a directory needs: those to reach servers with.
func checkFiles(d directory) error {
	servers, ok := d.(*ldapsync.LDAP)
	if !ok {
		return nil
	}
	if err := servers.CheckFiles(); err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	return nil
}

// places are where entries are, with what is the default for those keys that are not set.
func (d *DirectoryConfig) places() map[cert.Purpose]ldapsync.Place {
	places := ldapsync.DefaultPlaces(d.Base)
	for purpose, p := range map[cert.Purpose]PlaceConfig{cert.User: d.User, cert.Server: d.Server} {
		place := places[purpose]
		if p.Base != "" {
			place.Base = p.Base
		}
		if p.Filter != "" {
			place.Filter = p.Filter
		}
		places[purpose] = place
	}
	return places
}
