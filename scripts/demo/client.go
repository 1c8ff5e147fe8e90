package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/chancery-ca/chancery/rpc/xmlrpc"
)

// client speaks XML-RPC as any other client does.
type client struct {
	url  string
	http *http.Client
}

type answer struct {
	ok      bool
	message string
	detail  map[string]any
}

func newClient(url, dir string) (*client, error) {
	config, err := newTLS(dir)
	if err != nil {
		return nil, err
	}
	return &client{url, &http.Client{Transport: &http.Transport{TLSClientConfig: config}, Timeout: 30 * time.Second}}, nil
}

func (c *client) call(method string, request map[string]any) (answer, error) {
	body, err := xmlrpc.EncodeCall(xmlrpc.Call{Method: method, Params: []any{request}})
	if err != nil {
		return answer{}, err
	}
	response, err := c.http.Post(c.url, "text/xml", bytes.NewReader(body))
	if err != nil {
		return answer{}, fmt.Errorf("calling %s: %w", method, err)
	}
	text, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return answer{}, fmt.Errorf("calling %s: %w", method, err)
	}
	value, err := xmlrpc.DecodeResponse(text)
	if err != nil {
		return answer{}, fmt.Errorf("calling %s: %w", method, err)
	}
	triple, ok := value.([]any)
	if !ok || len(triple) != 3 {
		return answer{}, fmt.Errorf("calling %s: not an answer of three parts", method)
	}
	var a answer
	a.ok, _ = triple[0].(bool)
	a.message, _ = triple[1].(string)
	a.detail, _ = triple[2].(map[string]any)
	return a, nil
}
