package xmlrpc

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

// oracle reads a document with encoding/xml and returns its tags and texts in
// order, one line each.
func oracle(body []byte) (string, error) {
	d := xml.NewDecoder(bytes.NewReader(body))
	d.CharsetReader = func(_ string, r io.Reader) (io.Reader, error) { return r, nil }
	var b strings.Builder
	for {
		tok, err := d.Token()
		if err == io.EOF {
			return b.String(), nil
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			b.WriteString("+" + tok.Name.Local + "\n")
		case xml.EndElement:
			b.WriteString("-" + tok.Name.Local + "\n")
		case xml.CharData:
			b.WriteString("=" + string(tok) + "\n")
		case nil:
			return "", err
		}
	}
}

// ours is the same by our scanner.
func ours(body []byte) (string, error) {
	d, err := newDecoder(body, MaxElements)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for {
		tok, err := d.next()
		if err != nil || tok.kind == eof {
			return b.String(), err
		}
		switch tok.kind {
		case startTag:
			b.WriteString("+" + string(tok.name) + "\n")
		case endTag:
			b.WriteString("-" + string(tok.name) + "\n")
		case charData:
			b.WriteString("=" + string(tok.text) + "\n")
		}
	}
}

func FuzzDecodeCall(f *testing.F) {
	for _, c := range clientRequests {
		f.Add([]byte(c.body))
	}
	for _, value := range []string{
		"<value/>", "<value> a&#13;\r\n&#x41; </value>", "<value><base64>AA=&#10;=</base64></value>", "<value><nil/></value>",
		"<value><array><data><value><i4>-1</i4></value></data></array></value>", "<value><string>]]&gt;\u2028</string></value>",
		"<value><struct><member><name>a</name><value/></member><member><name>a</name><value/></member></struct></value>",
		"<value><dateTime.iso8601>2026-01-02T03:04:05Z</dateTime.iso8601></value>", "<value a='b'/>", "<value><!-- --></value>",
	} {
		f.Add([]byte(param(value)))
	}
	f.Add([]byte("\xFF\xFE<\x00"))
	f.Add([]byte(`<!DOCTYPE a [<!ENTITY b "c">]><methodCall/>`))
	f.Fuzz(func(t *testing.T, body []byte) {
		call, err := DecodeCall(body)
		if err != nil {
			var fault *Fault
			if !errors.As(err, &fault) {
				t.Fatalf("error %T: %v", err, err)
			}
			checkMessage(t, fault.Message)
			return
		}
		want, err := oracle(body)
		if err != nil {
			t.Fatalf("accepted, but encoding/xml says %v", err)
		}
		if got, err := ours(body); err != nil || got != want {
			t.Fatalf("we read\n%q, %v\nencoding/xml reads\n%q", got, err, want)
		}
		again, err := EncodeCall(call)
		if err != nil {
			// Explicit types and escapes make a document longer than it came.
			if len(body) > MaxBody/8 {
				return
			}
			t.Fatalf("decoded %#v, cannot encode it: %v", call, err)
		}
		if back, err := DecodeCall(again); err != nil || !reflect.DeepEqual(back, call) {
			t.Fatalf("%#v became %#v, %v", call, back, err)
		}
	})
}
