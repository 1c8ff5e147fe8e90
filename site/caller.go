package site

import (
	"context"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"go.uber.org/zap"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/profile"
	"github.com/chancery-ca/chancery/rpc"
)

// RotateCaller gives a configured caller a new key and certificate, as NAME.key and NAME.pem in the folder out,
// for when no caller is left that could ask for one; or, with the CSR in a file, PEM or DER, the certificate alone.
// Neither file may exist. What the caller had before stays valid. The daemon must not run, the key room must.
func RotateCaller(ctx context.Context, c Config, caller, out, csr string) error {
	if !slices.ContainsFunc(c.Callers, func(known rpc.Caller) bool { return known.Name == caller }) {
		return fmt.Errorf("%w: %s has no caller %q; add it with its grants first", ErrConfig, c.Path, caller)
	}
	own := ownIssue{
		purpose: cert.Caller, cn: caller,
		cert: filepath.Join(out, caller+".pem"), certMode: 0o444, key: filepath.Join(out, caller+".key"),
	}
	if _, err := os.Lstat(own.cert); err == nil {
		return fmt.Errorf("%w: %s exists and is not overwritten: name another folder", ErrConfig, own.cert)
	}
	if csr != "" {
		text, err := readAtMost(csr, maxConfig)
		if err != nil {
			return fmt.Errorf("%w: reading %s: %w", ErrConfig, csr, err)
		}
		if block, _ := pem.Decode(text); block != nil {
			text = block.Bytes
		}
		if _, err := profile.CheckCSR(text); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrConfig, csr, err)
		}
		own.csr = text
	}
	p, err := open(ctx, c, zap.NewNop())
	if err != nil {
		return err
	}
	return errors.Join(p.rotate(ctx, own), p.close())
}

func (p *parts) rotate(ctx context.Context, own ownIssue) error {
	backup, err := p.config.restored()
	if err != nil {
		return err
	}
	if backup != nil {
		return errors.New("this installation came out of a backup and was not started since: start the daemon once, so that git says what the backup does not know")
	}
	if err := (Daemon{Log: p.log}).witness(ctx, p, p.publisher); err != nil {
		return err
	}
	err = own.run(ctx, p.authority, ca.Call{Who: operator(), Rule: "caller rotate", RequestID: "rotate-" + rand.Text()})
	if err != nil {
		return fmt.Errorf("issuing for caller %s: %w", own.cn, err)
	}
	return nil
}
