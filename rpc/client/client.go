// Package client is the Go client of Chancery's RPC: JSON-RPC 2.0 over mutual TLS, with connections
// that are kept.
//
// It imports the standard library only. It never asks twice by itself: a caller that gives a request_id
// may ask again after any error, and gets the first answer.
package client

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// Answer is what a ca method answers. Msg says what to do next; Detail is an object whose member code
// is a stable word.
type Answer struct {
	OK     bool            `json:"ok"`
	Msg    string          `json:"msg"`
	Detail json.RawMessage `json:"detail"`
}

// Fault is the answer to a call that was not understood, or that a stranger made: nothing was done.
type Fault struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// Error gives number and text.
func (f *Fault) Error() string { return fmt.Sprintf("fault %d: %s", f.Code, f.Message) }

const maxResponse = 4 << 20 // bytes

// Client calls one service. It is safe for concurrent use.
type Client struct {
	url  string
	http *http.Client
	last atomic.Int64
	sign func(body []byte) (header string, err error) // nil: requests are not signed
}

// New makes a client of the service at url, for instance https://ca.example.org:8443/rpc. config holds
// the caller's certificate and the root that the service's own certificate chains to.
func New(url string, config *tls.Config) *Client {
	return &Client{url: url, http: &http.Client{
		Transport: &http.Transport{
			TLSClientConfig:     config,
			TLSHandshakeTimeout: 10 * time.Second,
			MaxIdleConnsPerHost: 64,
			IdleConnTimeout:     time.Minute,
			DisableCompression:  true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Sign has every request signed from now on with the signing key of a caller, Ed25519 or ECDSA P-256, as the
// service is set up to want it: for the installation whose root certificate this is, and for no other. A signed request
// that changes something needs a request_id.
func (c *Client) Sign(root *x509.Certificate, caller string, key crypto.Signer) {
	installation := sha256.Sum256(root.Raw)
	c.sign = func(body []byte) (string, error) {
		at := time.Now().Unix()
		text := fmt.Appendf(nil, "chancery-request-v1\n%x\n%s\n%d\n%x\n", installation, caller, at, sha256.Sum256(body))
		var hash crypto.Hash
		if _, ok := key.Public().(ed25519.PublicKey); !ok {
			sum := sha256.Sum256(text)
			hash, text = crypto.SHA256, sum[:]
		}
		signature, err := key.Sign(rand.Reader, text, hash)
		if err != nil {
			return "", fmt.Errorf("signing the request: %w", err)
		}
		return fmt.Sprintf("%d %s", at, base64.StdEncoding.EncodeToString(signature)), nil
	}
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

type call struct {
	Version string `json:"jsonrpc"`
	ID      int64  `json:"id"`
	Method  string `json:"method"`
	Params  []any  `json:"params"`
}

type reply struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id"`
	Result  json.RawMessage `json:"result"`
	Fault   *Fault          `json:"error"`
}

// Call makes one call. params is the one parameter, nil for none; the result is decoded into result, for
// a ca method an *Answer. The error is a *Fault if the service sent one. After any other error it is
// unknown whether the call was carried out.
func (c *Client) Call(ctx context.Context, method string, params, result any) error {
	ask := call{Version: "2.0", ID: c.last.Add(1), Method: method, Params: []any{}}
	if params != nil {
		ask.Params = append(ask.Params, params)
	}
	body, err := json.Marshal(ask)
	if err != nil {
		return fmt.Errorf("encoding the call of %s: %w", method, err)
	}
	text, err := c.post(ctx, body)
	if err != nil {
		return fmt.Errorf("calling %s: %w", method, err)
	}
	var r reply
	if err := json.Unmarshal(text, &r); err != nil {
		return fmt.Errorf("calling %s: decoding the answer: %w", method, err)
	}
	switch {
	case r.Fault != nil:
		return r.Fault
	case string(r.ID) != strconv.FormatInt(ask.ID, 10) || r.Result == nil:
		return fmt.Errorf("calling %s: the answer is not one to this call", method)
	}
	if err := json.Unmarshal(r.Result, result); err != nil {
		return fmt.Errorf("calling %s: decoding the answer: %w", method, err)
	}
	return nil
}

func (c *Client) post(ctx context.Context, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	if c.sign != nil {
		signature, err := c.sign(body)
		if err != nil {
			return nil, err
		}
		request.Header.Set("Chancery-Signature", signature)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxResponse+1))
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	switch {
	case len(text) > maxResponse:
		return nil, fmt.Errorf("an answer of more than %d bytes", maxResponse)
	case response.StatusCode != http.StatusOK || kind != "application/json":
		return nil, fmt.Errorf("HTTP %s, content type %q", response.Status, kind)
	}
	return text, nil
}
