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
	return xmlrpc.EncodeResponse(xmlTree(value))
}

func xmlTree(value any) any {
	switch v := value.(type) {
	case answer:
		return []any{v.ok, v.msg, v.detail}
	case several:
		all := []any{}
		for _, o := range v {
			if o.fault != nil {
				all = append(all, map[string]any{"faultCode": o.fault.number, "faultString": ascii(o.fault.text)})
				continue
			}
			all = append(all, []any{xmlTree(o.value)})
		}
		return all
	}
	return value
}

func (xmlWire) encodeFault(_ call, f *fault) []byte {
	return xmlrpc.EncodeFault(xmlrpc.Fault{Code: f.number, Message: f.text})
}
