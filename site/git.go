package site

import (
	"errors"
	"strings"

	"github.com/chancery-ca/chancery/crl/gitrepo"
)

// GitConfig says where lists are published: a bare repository on this machine, or one on a git server.
type GitConfig struct {
	// URL is https://HOST/PATH, ssh://USER@HOST/PATH or file:///PATH. This or Repository.
	URL string `yaml:"url,omitempty"`
	// Repository is the path of a bare repository on this machine.
	Repository string `yaml:"repository,omitempty"`
	Branch     string `yaml:"branch"`
	// Folder is the only one that is written, for instance pki.
	Folder string `yaml:"folder"`
	// Username and the file with the password, for https. Optional.
	Username     string `yaml:"username,omitempty"`
	PasswordFile string `yaml:"password_file,omitempty"`
	// ClientCert and ClientKey are files, PEM, for https. Optional.
	ClientCert string `yaml:"client_cert,omitempty"`
	ClientKey  string `yaml:"client_key,omitempty"`
	// CA is a file with the CAs of the server's certificate, PEM. Optional; those of the system.
	CA string `yaml:"ca,omitempty"`
	// SSHKey and KnownHosts are files: the deploy key, without a passphrase, and the server's keys.
	// Both are needed for ssh.
	SSHKey     string `yaml:"ssh_key,omitempty"`
	KnownHosts string `yaml:"known_hosts,omitempty"`
}

// Where names the repository.
func (g *GitConfig) Where() string {
	if g.URL != "" {
		return g.URL
	}
	return g.Repository
}

// elsewhere tells whether other lists are at another place than these.
func (g *GitConfig) elsewhere(other *GitConfig) bool {
	return g.Where() != other.Where() || g.Branch != other.Branch || g.Folder != other.Folder
}

// local is the path of the repository if it is on this machine.
func (g *GitConfig) local() (path string, ok bool) {
	if path, ok := strings.CutPrefix(g.URL, "file://"); ok {
		return path, true
	}
	return g.Repository, g.URL == ""
}

func (g *GitConfig) paths() []pathKey {
	return []pathKey{
		{"git.repository", &g.Repository, false}, {"git.password_file", &g.PasswordFile, true},
		{"git.client_cert", &g.ClientCert, false}, {"git.client_key", &g.ClientKey, true}, {"git.ca", &g.CA, false},
		{"git.ssh_key", &g.SSHKey, true}, {"git.known_hosts", &g.KnownHosts, false},
	}
}

// check looks at what can be judged without the files.
func (g *GitConfig) check() error {
	var failed []error
	if g.Branch == "" {
		failed = append(failed, wrong("git.branch", "git.branch is missing"))
	}
	if g.Folder == "" {
		failed = append(failed, wrong("git.folder", "git.folder is missing"))
	}
	path, local := g.local()
	switch {
	case (g.URL == "") == (g.Repository == ""):
		failed = append(failed, wrong("git", "git: either url or repository is needed"))
	case !local:
		failed = append(failed, g.checkServer())
	case !strings.HasPrefix(path, "/"):
		failed = append(failed, wrong("git.url", "git.url: %q is not file:///PATH", g.URL))
	case g.access() != (gitrepo.Access{}):
		failed = append(failed, wrong("git", "git: a repository on this machine needs no name, key or certificate"))
	}
	return errors.Join(failed...)
}

func (g *GitConfig) checkServer() error {
	u, err := gitrepo.ParseURL(g.URL)
	if err != nil {
		return wrong("git.url", "git.url: %w", err)
	}
	if err := g.access().Check(u.Scheme); err != nil {
		return wrong("git", "git: %w", err)
	}
	return nil
}

func (g *GitConfig) access() gitrepo.Access {
	return gitrepo.Access{
		Username: g.Username, PasswordFile: g.PasswordFile, ClientCert: g.ClientCert, ClientKey: g.ClientKey, CA: g.CA,
		SSHKey: g.SSHKey, KnownHosts: g.KnownHosts,
	}
}

// Open opens the repository. One on a server is not asked before it is read.
func (g *GitConfig) Open() (gitrepo.Remote, error) {
	if path, ok := g.local(); ok {
		remote, err := gitrepo.OpenLocal(path, g.Branch)
		if err != nil {
			return nil, err // not a Remote that holds a nil
		}
		return remote, nil
	}
	remote, err := gitrepo.OpenHosted(g.URL, g.Branch, g.Folder, g.access())
	if err != nil {
		return nil, err
	}
	return remote, nil
}
