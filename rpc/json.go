package rpc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/chancery-ca/chancery/rpc/xmlrpc"
)

// jsonWire is JSON-RPC 2.0: an answer is the object {"ok", "msg", "detail"}, bytes are base64 and times
// RFC 3339. One call a body, with an id; nothing that two readers could understand in two ways.
type jsonWire struct{}

func (jsonWire) decode(body []byte) (call, *fault) {
	tree, err := parseJSON(body)
	if err != nil {
		return call{}, err
	}
	object, ok := tree.(map[string]any)
	if !ok {
		return call{}, malformed("want one object; batches are not served")
	}
	var c call
	if id, there := object["id"]; there { // first, so that whatever else is wrong is answered under it
		if err := c.takeID(id); err != nil {
			return c, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		if err := c.take(name, object[name]); err != nil {
			return c, err
		}
	}
	switch {
	case object["jsonrpc"] == nil:
		return c, malformed("jsonrpc is missing; want \"2.0\"")
	case c.method == "":
		return c, malformed("method is missing")
	case c.id == nil:
		return c, malformed("id is missing; notifications are not served")
	}
	return c, nil
}

// take takes up one member of a call.
func (c *call) take(name string, v any) *fault {
	switch name {
	case "jsonrpc":
		if v != "2.0" {
			return malformed("jsonrpc: want \"2.0\"")
		}
	case "method":
		method, ok := v.(string)
		if !ok || method == "" || len(method) > xmlrpc.MaxMethod {
			return malformed("method: want a string of 1 to %d characters", xmlrpc.MaxMethod)
		}
		c.method = method
	case "params":
		switch v := v.(type) {
		case []any:
			c.params = v
		case map[string]any:
			c.params = []any{v}
		default:
			return malformed("params: want an object, or an array with one")
		}
	case "id":
	default:
		return malformed("there is no member %s; the members are jsonrpc, method, params and id", memberName(name))
	}
	return nil
}

const maxID = 256 // bytes

func (c *call) takeID(v any) *fault {
	switch v.(type) {
	case string, int, json.Number, nil:
	default:
		return malformed("id: want a string, a number or null")
	}
	id, err := json.Marshal(v)
	if err != nil || len(id) > maxID {
		return malformed("id: want at most %d bytes", maxID)
	}
	c.id = id
	return nil
}

func (jsonWire) encode(c call, value any) ([]byte, error) {
	return writeJSON(map[string]any{"jsonrpc": "2.0", "id": c.rawID(), "result": jsonTree(value)})
}

func jsonTree(value any) any {
	switch v := value.(type) {
	case answer:
		return map[string]any{"ok": v.ok, "msg": v.msg, "detail": v.detail}
	case several:
		all := []any{}
		for _, o := range v {
			if o.fault != nil {
				all = append(all, map[string]any{"error": map[string]any{"code": o.fault.number, "message": ascii(o.fault.text)}})
				continue
			}
			all = append(all, map[string]any{"result": jsonTree(o.value)})
		}
		return all
	}
	return value
}

func (jsonWire) encodeFault(c call, f *fault) []byte {
	// Written by hand, so that it cannot fail: of printable ASCII, Quote makes a JSON string.
	return fmt.Appendf(nil, `{"error":{"code":%d,"message":%s},"id":%s,"jsonrpc":"2.0"}`+"\n",
		f.number, strconv.Quote(ascii(f.text)), c.rawID())
}

func (c call) rawID() json.RawMessage {
	if c.id == nil {
		return json.RawMessage("null")
	}
	return json.RawMessage(c.id)
}

func writeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return b.Bytes(), err
}

func malformed(format string, args ...any) *fault {
	return &fault{codeInvalid, "malformed", fmt.Sprintf(format, args...)}
}
