package xmlrpc

import "fmt"

// DecodeCall reads a request. Its error is always a *Fault, fit to be sent
// back as it is: CodeNotWellFormed, CodeEncoding, CodeCharacter or CodeInvalid,
// with the byte offset of what is wrong, unless it is the whole (size, encoding
// label). Markup which is XML but refused here
// (document type, attribute, comment and so on) is CodeInvalid.
func DecodeCall(body []byte) (Call, error) {
	if len(body) > MaxBody {
		return Call{}, &Fault{CodeInvalid, fmt.Sprintf("request larger than %d bytes", MaxBody)}
	}
	d, err := newDecoder(body, MaxElements)
	if err != nil {
		return Call{}, err
	}
	if err := d.child("methodCall"); err != nil {
		return Call{}, err
	}
	call, err := d.methodCall()
	if err != nil {
		return Call{}, err
	}
	if err := d.finish(); err != nil {
		return Call{}, err
	}
	return call, nil
}

// DecodeResponse reads an answer: its value, or a *Fault as error if the
// service sent one. If the answer cannot be read, the error is ErrMalformed
// and holds no *Fault.
func DecodeResponse(body []byte) (any, error) {
	value, fault, err := decodeResponse(body)
	if err != nil {
		// Its text alone: a *Fault in the chain would pass for one that the service sent.
		return nil, fmt.Errorf("%w: %s", ErrMalformed, err.Error())
	}
	if fault != nil {
		return nil, fault
	}
	return value, nil
}

func decodeResponse(body []byte) (any, *Fault, error) {
	if len(body) > MaxResponse {
		return nil, nil, fmt.Errorf("larger than %d bytes", MaxResponse)
	}
	d, err := newDecoder(body, MaxResponseElements)
	if err != nil {
		return nil, nil, err
	}
	if err := d.child("methodResponse"); err != nil {
		return nil, nil, err
	}
	value, fault, err := d.methodResponse()
	if err != nil {
		return nil, nil, err
	}
	return value, fault, d.finish()
}

// A decoder holds tokens to the grammar of XML-RPC. Its methods which read an
// element are entered after the start tag and leave after the end tag.
type decoder struct {
	scanner
}

func newDecoder(body []byte, budget int) (*decoder, error) {
	start, err := checkText(body)
	if err != nil {
		return nil, err
	}
	return &decoder{scanner{body: body, pos: start, budget: budget}}, nil
}

// tag returns the next token that is not white space: a start tag, the end tag
// of the element that is open, or the end of the document.
func (d *decoder) tag() (token, error) {
	tok, err := d.next()
	if err != nil || tok.kind != charData {
		return tok, err
	}
	if indexNonSpace(tok.text) >= 0 {
		return token{}, d.strayText(tok)
	}
	return d.next()
}

func (d *decoder) strayText(tok token) error {
	return invalid(tok.at, "text in %s, where only elements belong", quote(d.open[len(d.open)-1]))
}

// child reads the start tag of the one element that may stand here.
func (d *decoder) child(name string) error {
	tok, err := d.tag()
	if err != nil {
		return err
	}
	if tok.kind != startTag || string(tok.name) != name {
		return d.unexpected(tok, name)
	}
	return nil
}

// unexpected says what was found where want is needed.
func (d *decoder) unexpected(tok token, want string) error {
	if tok.kind == endTag {
		return invalid(tok.at, "element %s ends without its <%s>", quote(tok.name), want)
	}
	return invalid(tok.at, "element %s, where <%s> belongs", quote(tok.name), want)
}

// close reads the end tag of the open element.
func (d *decoder) close() error {
	tok, err := d.tag()
	if err != nil {
		return err
	}
	if tok.kind == startTag {
		return invalid(tok.at, "element %s is one too many", quote(tok.name))
	}
	return nil
}

// each calls read after every start tag called name, up to the end tag of the
// open element; no other element may stand there.
func (d *decoder) each(name string, read func(at int) error) error {
	for {
		tok, err := d.tag()
		switch {
		case err != nil:
			return err
		case tok.kind == endTag:
			return nil
		case string(tok.name) != name:
			return d.unexpected(tok, name)
		}
		if err := read(tok.at); err != nil {
			return err
		}
	}
}

// text reads an element which holds character data alone. The bytes are valid
// until the next token is read.
func (d *decoder) text() ([]byte, error) {
	tok, err := d.next()
	if err != nil || tok.kind == endTag {
		return nil, err
	}
	text := tok.text
	if tok.kind == charData {
		// An end tag leaves the bytes of the text alone.
		if tok, err = d.next(); err != nil {
			return nil, err
		}
	}
	if tok.kind == startTag {
		return nil, invalid(tok.at, "element %s, where only text belongs", quote(tok.name))
	}
	return text, nil
}

// finish reads what follows the root; the scanner lets only white space pass.
func (d *decoder) finish() error {
	_, err := d.tag()
	return err
}

func (d *decoder) methodCall() (Call, error) {
	if err := d.child("methodName"); err != nil {
		return Call{}, err
	}
	at := d.pos
	name, err := d.text()
	if err != nil {
		return Call{}, err
	}
	call := Call{Method: string(name), Params: []any{}}
	if !validMethod(call.Method) {
		return Call{}, invalid(at, "method name %s; it has 1 to %d of A-Z a-z 0-9 _ . : /", quote(call.Method), MaxMethod)
	}
	tok, err := d.tag()
	if err != nil || tok.kind == endTag {
		return call, err
	}
	if string(tok.name) != "params" {
		return Call{}, d.unexpected(tok, "params")
	}
	call.Params, err = d.params()
	if err != nil {
		return Call{}, err
	}
	return call, d.close()
}

func (d *decoder) params() ([]any, error) {
	params := []any{}
	err := d.each("param", func(int) error {
		v, err := d.holder()
		params = append(params, v)
		return err
	})
	return params, err
}

// holder reads an element which holds one value and nothing else: <param>,
// <fault>.
func (d *decoder) holder() (any, error) {
	if err := d.child("value"); err != nil {
		return nil, err
	}
	v, err := d.value(1)
	if err != nil {
		return nil, err
	}
	return v, d.close()
}

func (d *decoder) methodResponse() (any, *Fault, error) {
	tok, err := d.tag()
	if err != nil {
		return nil, nil, err
	}
	var value any
	var fault *Fault
	switch {
	case tok.kind == startTag && string(tok.name) == "params":
		params, err := d.params()
		if err != nil {
			return nil, nil, err
		}
		if len(params) != 1 {
			return nil, nil, invalid(tok.at, "%d values in a response, not one", len(params))
		}
		value = params[0]
	case tok.kind == startTag && string(tok.name) == "fault":
		v, err := d.holder()
		if err != nil {
			return nil, nil, err
		}
		members, _ := v.(map[string]any)
		code, hasCode := members["faultCode"].(int)
		message, hasMessage := members["faultString"].(string)
		if !hasCode || !hasMessage || len(members) != 2 {
			return nil, nil, invalid(tok.at, "a fault has an int faultCode and a string faultString")
		}
		fault = &Fault{code, message}
	default:
		return nil, nil, d.unexpected(tok, "params> or <fault")
	}
	return value, fault, d.close()
}
