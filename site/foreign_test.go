package site_test

import (
	"path/filepath"
	"slices"
	"testing"
)

// TestForeignCAInBackup: the certificate of a foreign CA is part of an installation.
func TestForeignCAInBackup(t *testing.T) {
	t.Parallel()
	dir, identity := copyOf(t, worlds(t).night), keys(t)
	corp := filepath.Join(dir, "corp.pem")
	run(t, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", filepath.Join(dir, "corp.key"), "-out", corp, "-days", "99", "-subj", "/CN=Corp")
	files("echo 'foreign_cas: [{name: corp, file: corp.pem}]' >> chancery.yaml")(t, dir)
	found := entries(t, backupOf(t, dir, identity.Recipient()), identity)
	if !slices.ContainsFunc(found, func(e entry) bool { return e.header.Name == "corp.pem" && string(e.content) == read(t, corp) }) {
		t.Error("it is not in the backup")
	}
	if slices.ContainsFunc(found, func(e entry) bool { return e.header.Name == "corp.key" }) {
		t.Error("what is not named is in the backup")
	}
}
