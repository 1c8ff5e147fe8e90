package keyroom

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/credential"
)

// Config is keyroom.json: strict JSON, paths relative to the file. The limits in it are the room's own;
// the daemon cannot widen them.
type Config struct {
	Room           string          `json:"room"`                      // identity of the room; intents name it
	Origin         string          `json:"origin"`                    // of the log it follows
	Socket         string          `json:"socket"`                    // Unix socket
	State          string          `json:"state"`                     // folder with the journal and the encrypted keys
	DeliveryFolder string          `json:"delivery_folder,omitempty"` // folder of the delivery keys, best in memory; empty: State
	PassphraseFile string          `json:"passphrase_file"`           // opens the keys
	AllowedUIDs    []int           `json:"allowed_uids"`              // who may connect besides root; empty: only the room's own user
	RecoveryKey    string          `json:"recovery_key"`              // verifier key of the offline recovery key
	Issuers        []IssuerConfig  `json:"issuers"`
	PerHour        int64           `json:"certificates_per_hour"`
	PerDay         int64           `json:"certificates_per_day"`
	Callers        []SigningCaller `json:"callers,omitempty"`        // whose requests the room wants to see signed
	DeliveryHours  *int            `json:"delivery_hours,omitempty"` // how long sealed secrets are opened for their caller, 0: not at all; nil: 24
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
// meaning. What is wrong with it is a Problem.
func LoadConfig(path string) (Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	var c Config
	if err := c.read(text, filepath.Dir(path)); err != nil {
		return Config{}, locate(path, text, err)
	}
	return c, nil
}

func (c *Config) read(text []byte, base string) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(c); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("something stands behind the configuration")
	}
	if err := checkKeys(text); err != nil {
		return err
	}
	if err := c.check(); err != nil {
		return err
	}
	var err error
	if c.PassphraseFile, err = credential.Path(c.PassphraseFile, base); err != nil {
		return wrong("passphrase_file", "passphrase_file: %v", err)
	}
	if c.DeliveryFolder == "" {
		c.DeliveryFolder = c.State
	}
	for _, p := range []*string{&c.Socket, &c.State, &c.DeliveryFolder} {
		if !filepath.IsAbs(*p) {
			*p = filepath.Join(base, *p)
		}
	}
	return nil
}

func (c *Config) check() error {
	for _, needed := range []struct{ key, value string }{
		{"room", c.Room}, {"origin", c.Origin}, {"socket", c.Socket}, {"state", c.State}, {"passphrase_file", c.PassphraseFile},
	} {
		if needed.value == "" {
			return wrong(needed.key, "%s is missing", needed.key)
		}
	}
	if len(c.Issuers) == 0 {
		return wrong("issuers", "it names no issuers")
	}
	if c.PerHour <= 0 {
		return wrong("certificates_per_hour", "certificates_per_hour must be positive")
	}
	if c.PerDay <= 0 {
		return wrong("certificates_per_day", "certificates_per_day must be positive")
	}
	if h := c.deliveryHours(); h < 0 || h > maxDeliveryHours {
		return wrong("delivery_hours", "delivery_hours is %d; want 0 to %d", h, maxDeliveryHours)
	}
	if _, err := c.signers(); err != nil {
		return err
	}
	seen := make(map[cert.Issuer]bool)
	for n, i := range c.Issuers {
		key := fmt.Sprintf("issuers[%d]", n)
		if i.ID == "" || filepath.Base(string(i.ID)) != string(i.ID) || seen[i.ID] {
			return wrong(key+".id", "issuer id %q is empty, repeated or not a plain name", i.ID)
		}
		seen[i.ID] = true
		if len(i.Purposes) == 0 || i.MaxValidityDays <= 0 || i.MaxListDays <= 0 {
			return wrong(key, "issuer %s: purposes, max_validity_days and max_list_days are needed", i.ID)
		}
		for m, p := range i.Purposes {
			if _, err := cert.ParsePurpose(string(p)); err != nil {
				return wrong(fmt.Sprintf("%s.purposes[%d]", key, m), "issuer %s: %v", i.ID, err)
			}
		}
	}
	return nil
}

const (
	defaultDeliveryHours = 24
	maxDeliveryHours     = 7 * 24
)

func (c *Config) deliveryHours() int {
	if c.DeliveryHours == nil {
		return defaultDeliveryHours
	}
	return *c.DeliveryHours
}

// CheckFiles tells what Open would refuse of the files that a configuration names, the journal's content
// apart: it decrypts every key and compares it with its certificate. It may be asked while the room runs.
func (c Config) CheckFiles() error {
	r := &Room{config: c, rand: rand.Reader, issuers: make(map[cert.Issuer]*issuer)}
	passphrase, err := readPassphrase(c.PassphraseFile)
	if err != nil {
		return err
	}
	defer clear(passphrase)
	if err := r.loadKeys(passphrase); err != nil {
		return err
	}
	_, err = os.Stat(r.path("journal"))
	return err
}
