package site

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/credential"
)

// RoomConfigName is the file name of the key room's configuration in an installation's folder.
const RoomConfigName = "keyroom.json"

// roomFiles is what of keyroom.json says where the key room's files are, and whose requests are signed. The rest is
// the key room's to read.
type roomFiles struct {
	Socket         string `json:"socket"`
	State          string `json:"state"`
	Delivery       string `json:"delivery_folder"`
	PassphraseFile string `json:"passphrase_file"` // or a credential
	Issuers        []struct {
		ID cert.Issuer `json:"id"`
	} `json:"issuers"`
	Callers []struct {
		Name        string   `json:"name"`
		SigningKeys []string `json:"signing_keys"`
	} `json:"callers"`
}

// loadRoomFiles reads keyroom.json, which stands beside chancery.yaml. What it does not say is where init
// puts it.
func loadRoomFiles(dir string) (path string, r roomFiles, err error) {
	path = filepath.Join(dir, RoomConfigName)
	r = roomFiles{Socket: "keyroom/socket", State: "keyroom", PassphraseFile: "secrets/keyroom.passphrase"}
	text, err := os.ReadFile(path)
	if err != nil {
		err = fmt.Errorf("finding the key room's files: %w (run it as a user who may read them, such as root)", err)
	} else if err = json.Unmarshal(text, &r); err != nil {
		err = fmt.Errorf("%w: %s: %w", ErrConfig, path, err)
	}
	if r.Delivery == "" {
		r.Delivery = r.State
	}
	for _, p := range []*string{&r.Socket, &r.State, &r.Delivery, &r.PassphraseFile} {
		if !filepath.IsAbs(*p) && !credential.Named(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	return path, r, err
}
