package rpc

import (
	"errors"

	"github.com/chancery-ca/chancery/rpc/xmlrpc"
)

// xmlWire is XML-RPC: an answer is the array [ok, msg, detail].
type xmlWire struct{}

func (xmlWire) decode(body []byte) (call, *fault) {
	c, err := xmlrpc.DecodeCall(body)
	var f *xmlrpc.Fault
	switch {
	case errors.As(err, &f):
		return call{}, &fault{f.Code, "malformed", f.Message}
	case err != nil:
		return call{}, &fault{codeInvalid, "malformed", "the body cannot be read"}
	}
	return call{method: c.Method, params: c.Params}, nil
}

func (xmlWire) encode(_ call, value any) ([]byte, error) {
	if a, ok := value.(answer); ok {
		value = []any{a.ok, a.msg, a.detail}
	}
	return xmlrpc.EncodeResponse(value)
}

func (xmlWire) encodeFault(_ call, f *fault) []byte {
	return xmlrpc.EncodeFault(xmlrpc.Fault{Code: f.number, Message: f.text})
}
