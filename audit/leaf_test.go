package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chancery-ca/chancery/ca/cert"
)

// TestRoundTrip writes every kind of event, filled and empty, and reads it back.
func TestRoundTrip(t *testing.T) {
	for _, events := range [][]Event{filled(), Events()} {
		for _, e := range events {
			leaf := encode(t, e)
			got, err := Decode(leaf)
			if err != nil {
				t.Errorf("%s: %v\n%s", e.Type(), err, leaf)
				continue
			}
			if diff := cmp.Diff(Leaf{noon, who, e}, got); diff != "" {
				t.Errorf("%s (- written, + read):\n%s", e.Type(), diff)
			}
		}
	}
}

// TestKinds holds the set of events together: every name is there once, and every field is one that
// has exactly one spelling.
func TestKinds(t *testing.T) {
	seen := make(map[string]bool)
	for _, e := range Events() {
		if seen[e.Type()] {
			t.Errorf("%s stands twice in Events", e.Type())
		}
		seen[e.Type()] = true
		checkFields(t, e.Type(), reflect.TypeOf(e).Elem())
	}
	if len(seen) != 22 {
		t.Errorf("%d kinds of event", len(seen))
	}
}

func checkFields(t *testing.T, path string, typ reflect.Type) {
	t.Helper()
	switch {
	case typ == reflect.TypeFor[time.Time]():
		return
	case typ.Kind() == reflect.Slice || typ.Kind() == reflect.Pointer:
		checkFields(t, path, typ.Elem())
		return
	case typ.Kind() == reflect.Map || typ.Kind() == reflect.Interface || typ.Kind() == reflect.Float64:
		t.Errorf("%s is a %s", path, typ.Kind())
	case typ.Kind() != reflect.Struct:
		return
	}
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name != strings.ToLower(name) || !f.IsExported() {
			t.Errorf("%s.%s is called %q", path, f.Name, name)
		}
		// Without omitempty there is null as well as [].
		if k := f.Type.Kind(); (k == reflect.Slice || k == reflect.Pointer) && options != "omitempty" {
			t.Errorf("%s.%s can be left out in two ways", path, f.Name)
		}
		checkFields(t, path+"."+f.Name, f.Type)
	}
}

// TestOtherSpellings changes leaves without changing what a lenient reader understands, and in ways that
// it stumbles over. None is a leaf.
func TestOtherSpellings(t *testing.T) {
	intent := string(encode(t, &IssueIntent{CN: "alice", Serial: "0a", SANs: cert.SANs{Email: []string{"a@example.org"}}, NotBefore: noon.Truncate(time.Second)}))
	revoke := string(encode(t, &RevokeDone{Revoked: []Revocation{{Serial: "0a", Issuer: "users", At: noon.Truncate(time.Second), Reason: cert.Superseded}}}))
	stopped := string(encode(t, &ServiceStopped{}))
	replace := func(s, from, to string) string {
		t.Helper()
		if strings.Count(s, from) != 1 {
			t.Fatalf("%q stands %d times in %s", from, strings.Count(s, from), s)
		}
		return strings.Replace(s, from, to, 1)
	}
	for name, leaf := range map[string]string{
		"nothing":                         "",
		"null":                            "null",
		"an array":                        "[]",
		"a number":                        "1",
		"an empty object":                 "{}",
		"cut":                             stopped[:len(stopped)-1],
		"a space behind":                  stopped + " ",
		"a newline behind":                stopped + "\n",
		"another leaf behind":             stopped + stopped,
		"a NUL behind":                    stopped + "\x00",
		"a space in front":                " " + stopped,
		"a byte order mark":               "\ufeff" + stopped,
		"a space within":                  replace(stopped, `"v":1`, `"v": 1`),
		"a space within the event":        replace(intent, `"cn":"alice"`, `"cn": "alice"`),
		"a space in an empty event":       replace(stopped, `"event":{}`, `"event":{ }`),
		"a member twice":                  replace(stopped, `"v":1,`, `"v":1,"v":1,`),
		"a member of the event twice":     replace(intent, `"cn":"alice"`, `"cn":"bob","cn":"alice"`),
		"a member of the actor twice":     replace(stopped, `"kind":"caller"`, `"kind":"daemon","kind":"caller"`),
		"an unknown member":               replace(stopped, `"v":1,`, `"v":1,"w":1,`),
		"an unknown member of the event":  replace(stopped, `"event":{}`, `"event":{"force":true}`),
		"an unknown member of names":      replace(intent, `"email":`, `"other":[],"email":`),
		"members exchanged":               replace(stopped, `"v":1,"time":"2026-12-01T12:00:00.123456Z"`, `"time":"2026-12-01T12:00:00.123456Z","v":1`),
		"members of the event exchanged":  replace(revoke, `"serial":"0a","issuer":"users"`, `"issuer":"users","serial":"0a"`),
		"a member missing":                replace(stopped, `"v":1,`, ``),
		"a member of the event missing":   replace(intent, `"cn":"alice",`, ``),
		"a name in another case":          replace(stopped, `"type"`, `"Type"`),
		"an event's name in another case": replace(intent, `"cn"`, `"CN"`),
		"an escaped letter":               replace(intent, `"alice"`, `"\u0061lice"`),
		"an escaped slash":                replace(intent, `"alice"`, `"alice\/"`),
		"an escaped name":                 replace(intent, `"cn"`, `"c\u006e"`),
		"an escape in capitals":           replace(intent, `"alice"`, `"alice\u001F"`),
		"invalid UTF-8":                   replace(intent, `"alice"`, "\"alice\xff\""),
		"half a surrogate pair":           replace(intent, `"alice"`, `"\ud800"`),
		"another version":                 replace(stopped, `"v":1`, `"v":2`),
		"a version with a point":          replace(stopped, `"v":1`, `"v":1.0`),
		"a version with an exponent":      replace(stopped, `"v":1`, `"v":1e0`),
		"a version as text":               replace(stopped, `"v":1`, `"v":"1"`),
		"a time in another zone":          replace(stopped, `12:00:00.123456Z`, `13:00:00.123456+01:00`),
		"a time with a zero zone":         replace(stopped, `00.123456Z`, `00.123456+00:00`),
		"a time with more digits":         replace(stopped, `00.123456Z`, `00.1234560Z`),
		"a time with nanoseconds":         replace(stopped, `00.123456Z`, `00.123456789Z`),
		"a time in small letters":         replace(stopped, `00.123456Z`, `00.123456z`),
		"a time with a comma":             replace(stopped, `00.123456Z`, `00,123456Z`),
		"a day that there is not":         replace(stopped, `2026-12-01`, `2026-02-30`),
		"an event's time in a zone":       replace(intent, `"not_before":"2026-12-01T12:00:00Z"`, `"not_before":"2026-12-01T13:00:00+01:00"`),
		"an event's time with zeros":      replace(intent, `"not_before":"2026-12-01T12:00:00Z"`, `"not_before":"2026-12-01T12:00:00.000Z"`),
		"a revocation's time in a zone":   replace(revoke, `"at":"2026-12-01T12:00:00Z"`, `"at":"2026-12-01T13:00:00+01:00"`),
		"null for a text":                 replace(intent, `"alice"`, `null`),
		"null for a time":                 replace(intent, `"not_before":"2026-12-01T12:00:00Z"`, `"not_before":null`),
		"null for a list":                 replace(revoke, `"revoked":[{"serial":"0a","issuer":"users","at":"2026-12-01T12:00:00Z","reason":"superseded"}]`, `"revoked":null`),
		"an empty list":                   replace(revoke, `"revoked":[{"serial":"0a","issuer":"users","at":"2026-12-01T12:00:00Z","reason":"superseded"}]`, `"revoked":[]`),
		"null for what is left out":       replace(revoke, `]}}`, `],"pending":null}}`),
		"nothing for what is left out":    replace(revoke, `]}}`, `],"pending":[]}}`),
		"null for the event":              replace(stopped, `"event":{}`, `"event":null`),
		"null for the actor":              replace(stopped, `{"kind":"caller","name":"provisioning","key":"ab12","peer":"192.0.2.1:4711"}`, `null`),
		"an empty text left in":           replace(stopped, `"peer":"192.0.2.1:4711"`, `"peer":""`),
		"an unknown event":                replace(stopped, `service.stopped`, `service.halted`),
		"the event of another kind":       replace(stopped, `service.stopped`, `crl.intent`),
		"a reason by number":              replace(revoke, `"superseded"`, `4`),
		"a reason that there is not":      replace(revoke, `"superseded"`, `"removeFromCRL"`),
		"too long":                        replace(intent, `"alice"`, `"`+strings.Repeat("a", MaxLeaf)+`"`),
	} {
		if l, err := Decode([]byte(leaf)); !errors.Is(err, ErrNotCanonical) {
			t.Errorf("%s: read as %+v, %v\n%.400s", name, l, err, leaf)
		}
	}
	for _, leaf := range []string{intent, revoke, stopped} {
		if _, err := Decode([]byte(leaf)); err != nil {
			t.Errorf("%v\n%s", err, leaf)
		}
	}
}

// TestFlippedBits changes every bit of a leaf: what is still a leaf says something else.
func TestFlippedBits(t *testing.T) {
	for _, e := range filled() {
		leaf := encode(t, e)
		for i := range 8 * len(leaf) {
			flipped := bytes.Clone(leaf)
			flipped[i/8] ^= 1 << (i % 8)
			l, err := Decode(flipped)
			if err == nil && cmp.Equal(l, Leaf{noon, who, e}) {
				t.Errorf("%s: bit %d makes no difference", e.Type(), i)
			}
		}
	}
}

// TestEncodeSettlesSpelling hands Encode one thing in several spellings.
func TestEncodeSettlesSpelling(t *testing.T) {
	berlin := time.FixedZone("CET", 3600)
	at := noon.Truncate(time.Second)
	want := encode(t, &IssueDone{Serial: "0a", Revocation: &Revocation{At: at, Reason: cert.Superseded}})
	got, err := Encode(Leaf{noon.In(berlin).Add(789), who, &IssueDone{Serial: "0a", Revocation: &Revocation{At: at.In(berlin), Reason: cert.Superseded}}})
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v:\n got  %s\n want %s", err, got, want)
	}
	want = encode(t, &RevokeDone{RequestID: "r"})
	if got := encode(t, &RevokeDone{RequestID: "r", Revoked: []Revocation{}, Pending: []cert.Serial{}}); !bytes.Equal(got, want) {
		t.Errorf("nothing in two spellings:\n %s\n %s", got, want)
	}
	hostile := &RequestRefused{CN: "al\xffice\xc3", Code: "c", Reason: "\x00\u2028\"<&>\x7f\b\f"}
	leaf, err := Encode(Leaf{noon, Actor{Kind: ByStranger, Name: "\xfe"}, hostile})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Decode(leaf); err != nil {
		t.Errorf("text that is not UTF-8 makes a leaf that cannot be read: %v\n%s", err, leaf)
	}
	if _, err := Encode(Leaf{noon, who, &RequestRefused{CN: strings.Repeat("a", MaxLeaf)}}); err == nil {
		t.Error("a leaf that is too long was written")
	}
	if _, err := Encode(Leaf{time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), who, &ServiceStopped{}}); err == nil {
		t.Error("a time that RFC 3339 does not have was written")
	}
	if _, err := Encode(Leaf{noon, who, &RevokeDone{Revoked: []Revocation{{Reason: 8}}}}); err == nil {
		t.Error("a reason that no list has was written")
	}
}

// TestSpellingIsFixed holds one leaf to the octets that it has on logs that exist: a log is read again
// with every later release, and another spelling would end it.
func TestSpellingIsFixed(t *testing.T) {
	const text = "\\u0000\\u0001\\b\\t\\n\\f\\r\\u001b \\\"\\\\/<>&'\x7f\u0080é\u200b\\u2028\\u2029\ufeff\U0001f511"
	want := `{"v":1,"time":"2026-12-01T12:00:00.123456Z","actor":{"kind":"caller","name":"provisioning","key":"ab12","peer":"192.0.2.1:4711"},` +
		`"type":"issue.done","event":{"serial":"` + text + `","intent":-7,"fingerprint":"","room":{"room":"r","sequence":9007199254740993,"journal":""},` +
		`"revocation":{"serial":"","issuer":"","at":"0001-01-01T00:00:00Z","reason":"unspecified"}}}`
	got := encode(t, &IssueDone{
		Serial: "\x00\x01\b\t\n\f\r\x1b \"\\/<>&'\x7f\u0080é\u200b\u2028\u2029\ufeff\U0001f511", Intent: -7,
		Room: RoomState{Room: "r", Sequence: 1<<53 + 1}, Revocation: new(Revocation),
	})
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if _, err := Decode([]byte(want)); err != nil {
		t.Error(err)
	}
}

// TestPythonReadsLeaves has another reader of JSON understand the same, also one that refuses what the
// standard forbids.
func TestPythonReadsLeaves(t *testing.T) {
	var lines bytes.Buffer
	for _, e := range filled() {
		lines.Write(encode(t, e))
		lines.WriteByte('\n')
	}
	cmd := exec.CommandContext(t.Context(), "python3", "-c", `
import json, sys
def once(pairs):
    assert len(pairs) == len(dict(pairs)), pairs
    return dict(pairs)
for line in sys.stdin.buffer.read().decode("utf-8", "strict").split("\n")[:-1]:
    leaf = json.loads(line, object_pairs_hook=once)
    assert list(leaf) == ["v", "time", "actor", "type", "event"], list(leaf)
    print(json.dumps(leaf))`)
	cmd.Stdin = &lines
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	read := strings.Split(strings.TrimSpace(string(out)), "\n")
	for i, e := range filled() {
		var ours, theirs any
		if err := json.Unmarshal(encode(t, e), &ours); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(read[i]), &theirs); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(ours, theirs); diff != "" {
			t.Errorf("%s:\n%s", e.Type(), diff)
		}
	}
}

// FuzzDecode looks for octets that are read as a leaf and would be written in another way, and for a
// leaf that a lenient reader takes for something else.
func FuzzDecode(f *testing.F) {
	for _, events := range [][]Event{filled(), Events()} {
		for _, e := range events {
			f.Add(encode(f, e))
		}
	}
	f.Add([]byte(`{"v":1,"time":"2026-12-01T12:00:00Z","actor":{"kind":""},"type":"revoke.done","event":{"request_id":"\ufffd"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := Decode(data)
		if err != nil {
			if !errors.Is(err, ErrNotCanonical) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		again, err := Encode(l)
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("read, and written as %s (%v)", again, err)
		}
		if !json.Valid(data) || l.Time.Location() != time.UTC {
			t.Fatalf("%v", l.Time)
		}
	})
}
