//go:build ignore

// Issue and revoke from Go, with the package rpc/client.
//
//	go run chancery.go URL FOLDER issue PURPOSE NAME REQUEST_ID
//	go run chancery.go URL FOLDER revoke SERIAL REASON REQUEST_ID
//
// URL is https://HOST:PORT/rpc; FOLDER holds root.pem, caller.pem and caller.key. Exit code 0: done, 1: refused, 2:
// the call is wrong, 3: it is not known how it ended; run the same command again.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/chancery-ca/chancery/rpc/client"
)

// With these codes OK is false and nothing was refused: the same call can be made again.
var trouble = []string{"outcome.unknown", "keyroom.unreachable", "keyroom.behind", "store.behind", "store.fork"}

type detail struct {
	Code      string `json:"code"`
	PKCS12    []byte `json:"pkcs12"`
	Password  string `json:"password"`
	RevokedAt string `json:"revoked_at"`
}

// ask makes a call. params has a request_id, so asking again never does anything twice.
func ask(c *client.Client, method string, params map[string]any) (a client.Answer, d detail, err error) {
	for _, wait := range []time.Duration{1, 2, 4, 0} {
		ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second) // the service gives up after 60
		a, d = client.Answer{}, detail{}
		err = c.Call(ctx, method, params, &a)
		cancel()
		var fault *client.Fault
		switch {
		case errors.As(err, &fault) && fault.Code != -32603 && fault.Code != 4290: // an internal error; too many calls at once
			return a, d, err
		case err == nil:
			if err = json.Unmarshal(a.Detail, &d); err == nil && (a.OK || !slices.Contains(trouble, d.Code)) {
				return a, d, nil
			}
			err = errors.Join(err, errors.New(a.Msg))
		}
		time.Sleep(wait * time.Second)
	}
	return a, d, fmt.Errorf("not known how it ended: %s - run the same command again", err)
}

func connect(url, folder string) (*client.Client, error) {
	own, err := tls.LoadX509KeyPair(filepath.Join(folder, "caller.pem"), filepath.Join(folder, "caller.key"))
	if err != nil {
		return nil, err
	}
	root, err := os.ReadFile(filepath.Join(folder, "root.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(root) {
		return nil, errors.New("root.pem holds no certificate")
	}
	return client.New(url, &tls.Config{Certificates: []tls.Certificate{own}, RootCAs: roots, MinVersion: tls.VersionTLS12}), nil
}

func run(args []string) int {
	if len(args) != 6 || args[2] != "issue" && args[2] != "revoke" {
		fmt.Fprintln(os.Stderr, "chancery.go URL FOLDER issue PURPOSE NAME REQUEST_ID, or revoke SERIAL REASON REQUEST_ID")
		return 2
	}
	c, err := connect(args[0], args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	method, id := "ca."+args[2], args[5]
	params := map[string]any{"purpose": args[3], "cn": args[4], "request_id": id}
	if method == "ca.revoke" {
		params = map[string]any{"serial": args[3], "reason": args[4], "request_id": id}
	}
	a, d, err := ask(c, method, params)
	var fault *client.Fault
	switch {
	case errors.As(err, &fault):
		fmt.Fprintln(os.Stderr, "fault", fault.Code, fault.Message)
		return 2
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		return 3
	case !a.OK:
		fmt.Fprintln(os.Stderr, "refused:", a.Msg, d.Code)
		return 1
	}
	if err := hand(a.Msg, d, id); err != nil {
		fmt.Fprintln(os.Stderr, "done, and not written:", err, "- run the same command again")
		return 3
	}
	if d.RevokedAt != "" {
		return 1 // a retry, and somebody has revoked the certificate since
	}
	return 0
}

func hand(msg string, d detail, id string) error {
	if _, err := fmt.Println(msg); err != nil || d.RevokedAt != "" || d.PKCS12 == nil {
		return err
	}
	// The same request id always gets the same octets, so the file can be written again.
	if err := os.WriteFile(id+".p12", d.PKCS12, 0o600); err != nil {
		return err
	}
	_, err := fmt.Println("password", d.Password)
	return err
}

func main() { os.Exit(run(os.Args[1:])) }
