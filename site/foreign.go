package site

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/chancery-ca/chancery/rpc"
	"github.com/chancery-ca/chancery/store"
)

// callers is who may use the RPC, with the certificates of the foreign CAs as their files have them now. Errors
// are rpc.ConfigErrors, joined.
func (c Config) callers() (rpc.Config, error) {
	config := rpc.Config{Callers: c.Callers, ForeignCAs: slices.Clone(c.ForeignCAs)}
	var failed []error
	for i, f := range config.ForeignCAs {
		found, err := readCertificates(f.File)
		if err == nil && len(found) != 1 {
			err = fmt.Errorf("%s holds %d certificates: want that of the CA which signs for the callers, in PEM", f.File, len(found))
		}
		if err != nil {
			failed = append(failed, wrong(fmt.Sprintf("foreign_cas[%d].file", i), "foreign CA %s: %w", f.Name, err))
			continue
		}
		config.ForeignCAs[i].Certificate = found[0]
	}
	return config, errors.Join(failed...)
}

// rules checks who may use the RPC as a running service does. What it returns puts that into force.
func (c Config) rules(server *rpc.Server) (apply func(), err error) {
	config, err := c.callers()
	if err != nil {
		return nil, err
	}
	return server.Prepare(config, c.TLS12)
}

// checkCallers compares what credentials name with the CAs that there are, those of the installation and others.
func (c *Config) checkCallers() error {
	if len(c.ForeignCAs) == 0 && !slices.ContainsFunc(c.Callers, func(one rpc.Caller) bool { return len(one.Credentials) > 0 }) {
		return nil
	}
	config, err := c.callers()
	if err != nil {
		return err
	}
	own, err := readCertificates(c.trusted("chain.pem"))
	if err != nil {
		return wrong("trust", "trust: %w", err)
	}
	return config.CheckCAs(own, time.Now())
}

// foreignDeadlines gives the end of each foreign CA.
func (c Config) foreignDeadlines(context.Context, *store.Store) ([]Deadline, error) {
	config, err := c.callers()
	var all []Deadline
	for _, f := range config.ForeignCAs {
		if f.Certificate != nil {
			all = append(all, Deadline{
				codeExpiryForeign, f.Name, f.Certificate.NotAfter,
				"get the CA's next certificate, name its file in foreign_cas, and reload; or take the CA out if no caller comes in by it any more",
			})
		}
	}
	return all, err
}
