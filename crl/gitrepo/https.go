package gitrepo

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// overHTTPS reaches a repository over https (gitprotocol-http, the smart kind).
type overHTTPS struct {
	client   *http.Client
	base     string
	user     string
	password string
}

func newHTTPS(at *url.URL, a Access) (*overHTTPS, error) {
	settings := &tls.Config{MinVersion: tls.VersionTLS12}
	if a.CA != "" {
		pem, err := os.ReadFile(a.CA)
		if err != nil {
			return nil, fmt.Errorf("reading the CAs: %w", err)
		}
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", a.CA)
		}
	}
	if a.ClientCert != "" {
		certificate, err := os.ReadFile(a.ClientCert)
		if err != nil {
			return nil, fmt.Errorf("reading the client certificate: %w", err)
		}
		key, err := readSecret(a.ClientKey)
		if err != nil {
			return nil, err
		}
		pair, err := tls.X509KeyPair(certificate, key)
		if err != nil {
			return nil, fmt.Errorf("client certificate %s and key %s: %w", a.ClientCert, a.ClientKey, err)
		}
		settings.Certificates = []tls.Certificate{pair}
	}
	w := &overHTTPS{base: strings.TrimSuffix(at.String(), "/"), user: a.Username}
	if a.PasswordFile != "" {
		password, err := readSecret(a.PasswordFile)
		if err != nil {
			return nil, err
		}
		w.password = strings.TrimRight(string(password), "\r\n")
	}
	w.client = &http.Client{
		Transport: &http.Transport{
			TLSClientConfig: settings, TLSHandshakeTimeout: 15 * time.Second, IdleConnTimeout: time.Minute,
			MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true,
		},
		// Another address is another server, which must not see our password.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return w, nil
}

// converse is of way.
func (w *overHTTPS) converse(ctx context.Context, service string) (*exchange, error) {
	r, clock, err := w.do(ctx, http.MethodGet, "/info/refs?service="+service, "", nil, service+"-advertisement")
	if err != nil {
		return nil, err
	}
	e := &exchange{greeting: r, close: r.Close, quit: func() { drain(r) }, clock: clock}
	line, err := readPkt(r)
	if err == nil && strings.TrimSpace(string(line)) != "# service="+service {
		err = fmt.Errorf("%w: it announces %s", ErrHostile, told(line))
	}
	if err == nil {
		if line, err = readPkt(r); err == nil && line != nil {
			err = fmt.Errorf("%w: it announces %s", ErrHostile, told(line))
		}
	}
	if err != nil {
		return nil, errors.Join(noEOF(err), r.Close())
	}
	e.ask = func(request []byte) (io.Reader, error) {
		drain(r)
		_ = r.Close() // only read from
		e.close = func() error { return nil }
		reply, _, err := w.do(ctx, http.MethodPost, "/"+service, service+"-request", request, service+"-result")
		if err != nil {
			return nil, err
		}
		e.close = reply.Close
		return reply, nil
	}
	return e, nil
}

// do gives the answer's body, and what the server's clock said; zero if it did not tell.
func (w *overHTTPS) do(ctx context.Context, method, path, sends string, body []byte, wants string) (io.ReadCloser, time.Time, error) {
	var clock time.Time
	r, err := http.NewRequestWithContext(ctx, method, w.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, clock, err
	}
	r.Header.Set("User-Agent", "git/2.0 (chancery)") // some servers answer only to git
	r.Header.Set("Accept", "application/x-"+wants)
	if sends != "" {
		r.Header.Set("Content-Type", "application/x-"+sends)
	}
	if w.user != "" || w.password != "" {
		r.SetBasicAuth(w.user, w.password)
	}
	reply, err := w.client.Do(r)
	if err != nil {
		return nil, clock, err
	}
	if err := w.check(reply, "application/x-"+wants); err != nil {
		return nil, clock, errors.Join(err, reply.Body.Close())
	}
	if date, err := http.ParseTime(reply.Header.Get("Date")); err == nil {
		clock = date
	}
	return reply.Body, clock, nil
}

func (w *overHTTPS) check(reply *http.Response, wants string) error {
	switch code := reply.StatusCode; {
	case code >= 300 && code < 400:
		return fmt.Errorf("%s redirects to %s, which is not followed: if that is right, it has to be the configured address",
			w.base, told([]byte(reply.Header.Get("Location"))))
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return fmt.Errorf("%s does not let us in (%d): name and password or client certificate", w.base, code)
	case code == http.StatusNotFound:
		return fmt.Errorf("%s: there is no such repository, or it is not shown to us (404)", w.base)
	case code != http.StatusOK:
		text, _ := io.ReadAll(io.LimitReader(reply.Body, maxTold))
		return fmt.Errorf("%s answers %d: %s", w.base, code, told(text))
	}
	if have := reply.Header.Get("Content-Type"); have != wants {
		return fmt.Errorf("%s is no git server: it sends %s", w.base, told([]byte(have)))
	}
	return nil
}
