package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"
)

// MaxLeaf is the longest leaf, in octets.
const MaxLeaf = 256 << 10

// ErrNotCanonical is in the chain of every error of Decode: the bytes are not what Encode would have
// written for any event.
var ErrNotCanonical = errors.New("not a leaf that this encoder writes")

// Event is one of the closed set of things that can be entered on the log.
type Event interface {
	// Type is the stable name of the kind of event, for instance "issue.intent".
	Type() string
}

// ActorKind tells in which capacity somebody acted.
type ActorKind string

// The capacities.
const (
	ByCaller   ActorKind = "caller"   // a configured caller of the RPC
	ByDaemon   ActorKind = "daemon"   // the service itself, in its loops and at start
	ByOperator ActorKind = "operator" // somebody at the command line of the machine
	ByCeremony ActorKind = "ceremony" // the making of the installation
	ByStranger ActorKind = "stranger" // somebody the RPC does not know
)

// Actor is who did what the event says.
type Actor struct {
	Kind ActorKind `json:"kind"`
	Name string    `json:"name,omitempty"` // the configured caller name, or the operator's login name
	Key  string    `json:"key,omitempty"`  // SHA-256 of the SubjectPublicKeyInfo the caller proved, lower-case hex
	Peer string    `json:"peer,omitempty"` // IP address and port
}

// Leaf is a decoded leaf.
type Leaf struct {
	Time  time.Time // UTC, whole microseconds: the clock of the store when it committed
	Actor Actor
	Event Event
}

// A leaf is JSON with exactly the members of head, in this order, and the event as the last.
type head struct {
	V     int       `json:"v"`
	Time  time.Time `json:"time"`
	Actor Actor     `json:"actor"`
	Type  string    `json:"type"`
}

// eventFollows stands between head and event. No text inside a leaf can contain it, since its quotes would be escaped.
const eventFollows = `,"event":`

// Encode writes a leaf. The leaf's time is cut to microseconds. Every time in it is put into UTC and
// every text into valid UTF-8, in the event itself, so that what is said once is spelled in one way.
func Encode(l Leaf) ([]byte, error) {
	normalise(reflect.ValueOf(l.Event))
	normalise(reflect.ValueOf(&l.Actor))
	var buf bytes.Buffer
	err := appendJSON(&buf, head{1, l.Time.UTC().Truncate(time.Microsecond), l.Actor, l.Event.Type()})
	if err != nil {
		return nil, fmt.Errorf("encoding a %s leaf: %w", l.Event.Type(), err)
	}
	buf.Truncate(buf.Len() - len("}"))
	buf.WriteString(eventFollows)
	if err := appendJSON(&buf, l.Event); err != nil {
		return nil, fmt.Errorf("encoding a %s event: %w", l.Event.Type(), err)
	}
	buf.WriteByte('}')
	leaf := buf.Bytes()
	if len(leaf) > MaxLeaf {
		return nil, fmt.Errorf("a %s leaf of %d octets; at most %d", l.Event.Type(), len(leaf), MaxLeaf)
	}
	return leaf, nil
}

// Decode reads a leaf and refuses every byte sequence that Encode would not have written: unknown,
// repeated, missing or reordered members, other white space, other spellings of a value.
func Decode(leaf []byte) (Leaf, error) {
	if len(leaf) > MaxLeaf {
		return Leaf{}, fmt.Errorf("%w: %d octets, at most %d", ErrNotCanonical, len(leaf), MaxLeaf)
	}
	begin, event, ok := bytes.Cut(leaf, []byte(eventFollows))
	if !ok || !bytes.HasSuffix(event, []byte("}")) {
		return Leaf{}, fmt.Errorf("%w: it has no event", ErrNotCanonical)
	}
	var h head
	if err := json.Unmarshal(append(bytes.Clone(begin), '}'), &h); err != nil {
		return Leaf{}, fmt.Errorf("%w: %w", ErrNotCanonical, err)
	}
	l := Leaf{Time: h.Time, Actor: h.Actor}
	var err error
	if l.Event, err = newEvent(h.Type); err != nil {
		return Leaf{}, fmt.Errorf("%w: %w", ErrNotCanonical, err)
	}
	if err := json.Unmarshal(bytes.TrimSuffix(event, []byte("}")), l.Event); err != nil {
		return Leaf{}, fmt.Errorf("%w: %s: %w", ErrNotCanonical, h.Type, err)
	}
	// Whatever else was there is not written again.
	again, err := Encode(l)
	if err != nil {
		return Leaf{}, fmt.Errorf("%w: %w", ErrNotCanonical, err)
	}
	if h.V != 1 || !bytes.Equal(again, leaf) {
		return Leaf{}, fmt.Errorf("%w: a %s leaf in another spelling", ErrNotCanonical, h.Type)
	}
	return l, nil
}

// normalise puts what v points to into the one form that is written. What json would do by itself is not
// enough: it keeps the zone of a time, and spells an invalid octet as an escape but reads it back as a
// character.
func normalise(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			normalise(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			normalise(v.Index(i))
		}
	case reflect.String:
		if !utf8.ValidString(v.String()) {
			v.SetString(strings.ToValidUTF8(v.String(), "\uFFFD"))
		}
	case reflect.Struct:
		if t, ok := v.Interface().(time.Time); ok {
			if t.Location() != time.UTC {
				v.Set(reflect.ValueOf(t.UTC()))
			}
			return
		}
		for i := range v.NumField() {
			normalise(v.Field(i))
		}
	}
}

// appendJSON writes v on one line, without its end.
func appendJSON(buf *bytes.Buffer, v any) error {
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	buf.Truncate(buf.Len() - len("\n"))
	return nil
}
