package keyroom

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/chancery-ca/chancery/ca/cert"
)

// Config is keyroom.json: strict JSON, paths relative to the file. The limits in it are the room's own;
// the daemon cannot widen them.
type Config struct {
	Room           string         `json:"room"`            // identity of the room; intents name it
	Origin         string         `json:"origin"`          // of the log it follows
	Socket         string         `json:"socket"`          // Unix socket
	State          string         `json:"state"`           // folder with the journal and the encrypted keys
	PassphraseFile string         `json:"passphrase_file"` // opens the keys
	AllowedUIDs    []int          `json:"allowed_uids"`    // who may connect besides root; empty: only the room's own user
	RecoveryKey    string         `json:"recovery_key"`    // verifier key of the offline recovery key
	Issuers        []IssuerConfig `json:"issuers"`
	PerHour        int64          `json:"certificates_per_hour"`
	PerDay         int64          `json:"certificates_per_day"`
}

// IssuerConfig is one issuing CA and what it may sign. Its certificate and key are <id>.pem and
// <id>.key in the state folder.
type IssuerConfig struct {
	ID              cert.Issuer    `json:"id"`
	Purposes        []cert.Purpose `json:"purposes"`
	Domains         []string       `json:"domains,omitempty"` // permitted suffixes of host names and mail domains; empty: all
	CRLURL          string         `json:"crl_url,omitempty"` // http URL for the CRL distribution point; empty: none
	MaxValidityDays int            `json:"max_validity_days"`
	MaxListDays     int            `json:"max_list_days"` // longest time from thisUpdate to nextUpdate
}

// ErrConfig marks a configuration that cannot be used.
var ErrConfig = errors.New("configuration")

// LoadConfig reads keyroom.json. Unknown members are errors, and so is a missing one that has no zero
// meaning.
func LoadConfig(path string) (Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	var c Config
	if err := dec.Decode(&c); err != nil {
		return Config{}, fmt.Errorf("%w: %s: %w", ErrConfig, path, err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return Config{}, fmt.Errorf("%w: %s: something stands behind the configuration", ErrConfig, path)
	}
	if err := c.check(); err != nil {
		return Config{}, fmt.Errorf("%w: %s: %w", ErrConfig, path, err)
	}
	base := filepath.Dir(path)
	for _, p := range []*string{&c.Socket, &c.State, &c.PassphraseFile} {
		if !filepath.IsAbs(*p) {
			*p = filepath.Join(base, *p)
		}
	}
	return c, nil
}

func (c Config) check() error {
	switch {
	case c.Room == "" || c.Origin == "":
		return errors.New("room and origin are missing")
	case c.Socket == "" || c.State == "" || c.PassphraseFile == "":
		return errors.New("socket, state and passphrase_file are missing")
	case len(c.Issuers) == 0:
		return errors.New("it names no issuers")
	case c.PerHour <= 0 || c.PerDay <= 0:
		return errors.New("certificates_per_hour and certificates_per_day must be positive")
	}
	seen := make(map[cert.Issuer]bool)
	for _, i := range c.Issuers {
		if i.ID == "" || filepath.Base(string(i.ID)) != string(i.ID) || seen[i.ID] {
			return fmt.Errorf("issuer id %q is empty, repeated or not a plain name", i.ID)
		}
		seen[i.ID] = true
		if len(i.Purposes) == 0 || i.MaxValidityDays <= 0 || i.MaxListDays <= 0 {
			return fmt.Errorf("issuer %s: purposes, max_validity_days and max_list_days are needed", i.ID)
		}
		for _, p := range i.Purposes {
			if _, err := cert.ParsePurpose(string(p)); err != nil {
				return fmt.Errorf("issuer %s: %w", i.ID, err)
			}
		}
	}
	return nil
}
