package rpc

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/rpc/client"
)

// writeReference has TestReference write what it would otherwise compare: make reference.
var writeReference = flag.Bool("write-reference", false, "write docs/RPC.md and docs/openrpc.json")

// TestReference: the page of each method, the table of codes and the schemas are what the sources say.
func TestReference(t *testing.T) {
	const page, schemas = "../docs/RPC.md", "../docs/openrpc.json"
	doc, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	text := replace(t, string(doc), "methods", pages())
	text = replace(t, text, "codes", codes())
	for path, want := range map[string]string{page: text, schemas: document(t)} {
		if *writeReference {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if is, err := os.ReadFile(path); err != nil || string(is) != want {
			t.Errorf("%s is not what the sources say: make reference", path)
		}
	}
}

// replace puts text in the place that a page has for it.
func replace(t *testing.T, doc, place, text string) string {
	t.Helper()
	begin, end := "<!-- "+place+": written by make reference -->\n", "<!-- end of "+place+" -->\n"
	before, rest, found := strings.Cut(doc, begin)
	_, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("the page does not say where the %s begin and end", place)
	}
	return before + begin + "\n" + text + "\n" + end + after
}

func codes() string {
	var b strings.Builder
	b.WriteString("| code | kind | meaning |\n|---|---|---|\n")
	for _, c := range codeKinds() {
		b.WriteString("| `" + c.code + "` | " + string(c.kind) + " | " + c.meaning + " |\n")
	}
	return b.String()
}

// pages writes a page for each method.
func pages() string {
	var b strings.Builder
	var system []Method
	for _, m := range Reference() {
		if m.Params == nil {
			system = append(system, m)
			continue
		}
		b.WriteString("## " + m.Name + "\n\n" + ticked(m.Help) + "\n")
		table(&b, "member", m.Params, func(o bool) string { return map[bool]string{false: ", required"}[o] })
		table(&b, "detail", withoutHead(m.Detail), func(o bool) string { return map[bool]string{true: ", optional"}[o] })
		b.WriteString("\n")
	}
	b.WriteString("## system.\n\nThey need a known caller and no grant.\n")
	for _, m := range system {
		b.WriteString("\n`" + m.Name + "(" + strings.Join(m.Signature[1:], ", ") + ")` gives " + m.Signature[0] + ". " + ticked(m.Help) + "\n")
	}
	return b.String()
}

func withoutHead(members []Member) []Member {
	return members[reflect.TypeFor[head]().NumField():]
}

func table(b *strings.Builder, title string, members []Member, need func(optional bool) string) {
	if len(members) == 0 {
		return
	}
	b.WriteString("\n| " + title + " | type | |\n|---|---|---|\n")
	rows(b, "", members, need)
}

func rows(b *strings.Builder, prefix string, members []Member, need func(optional bool) string) {
	for _, m := range members {
		kind := strings.TrimPrefix(strings.TrimPrefix(m.Type, "an "), "a ")
		b.WriteString("| `" + prefix + m.Name + "` | " + kind + need(m.Optional) + " | " + ticked(m.Explained()) + " |\n")
		inner := prefix + m.Name + "."
		if m.kind.Kind() == reflect.Slice {
			inner = prefix + m.Name + "[]."
		}
		rows(b, inner, m.Members, need)
	}
}

// ticked marks names of methods and members as such.
func ticked(text string) string {
	return regexp.MustCompile(`\b(ca|system)\.[a-zA-Z]+|\b[a-z]+_[a-z]+\b`).ReplaceAllString(text, "`$0`")
}

// document is the OpenRPC description of the ca methods (spec.open-rpc.org, version 1.3.2), a line each.
func document(t *testing.T) string {
	t.Helper()
	var lines []string
	for _, m := range Reference() {
		if m.Params == nil {
			continue
		}
		line, err := json.Marshal(methodObject(m))
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(line))
	}
	return `{"openrpc": "1.3.2", "info": {"title": "Chancery", "version": "1"}, "methods": [` + "\n" + strings.Join(lines, ",\n") + "\n]}\n"
}

func methodObject(m Method) map[string]any {
	params := []any{}
	for _, p := range m.Params {
		params = append(params, map[string]any{"name": p.Name, "required": !p.Optional, "schema": schemaOf(p)})
	}
	refusal := structSchema(membersIn(reflect.TypeFor[refusalDetail]()))
	return map[string]any{
		"name": m.Name, "description": m.Help, "paramStructure": "by-name", "params": params,
		"result": map[string]any{"name": "answer", "schema": map[string]any{"oneOf": []any{
			answerSchema(true, structSchema(m.Detail)), answerSchema(false, refusal),
		}}},
	}
}

func answerSchema(ok bool, detail map[string]any) map[string]any {
	return map[string]any{"type": "object", "required": []string{"ok", "msg", "detail"}, "additionalProperties": false, "properties": map[string]any{
		"ok": map[string]any{"const": ok}, "msg": text(), "detail": detail,
	}}
}

func text() map[string]any { return map[string]any{"type": "string"} }

func structSchema(members []Member) map[string]any {
	properties, required := make(map[string]any), []string{}
	for _, m := range members {
		properties[m.Name] = schemaOf(m)
		if !m.Optional {
			required = append(required, m.Name)
		}
	}
	return map[string]any{"type": "object", "properties": properties, "required": required, "additionalProperties": false}
}

func schemaOf(m Member) map[string]any {
	s := kindSchema(m.kind, m)
	if m.Help != "" {
		s["description"] = m.Help
	}
	if m.Values != nil {
		s["enum"] = m.Values
	}
	return s
}

func kindSchema(t reflect.Type, m Member) map[string]any {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	case t == reflect.TypeFor[[]byte](), t == reflect.TypeFor[csr]():
		return text()
	case m.Members != nil && t.Kind() == reflect.Slice:
		return map[string]any{"type": "array", "items": structSchema(m.Members)}
	case m.Members != nil:
		return structSchema(m.Members)
	case t.Kind() == reflect.Slice:
		return map[string]any{"type": "array", "items": text()}
	case t.Kind() == reflect.Bool:
		return map[string]any{"type": "boolean"}
	case t.Kind() == reflect.Int, t.Kind() == reflect.Int64:
		return map[string]any{"type": "integer", "minimum": -1 << 31, "maximum": 1<<31 - 1}
	}
	return text()
}

// TestAnswersFitTheirSchemas: what the service answers is what docs/openrpc.json says, as another program reads it.
func TestAnswersFitTheirSchemas(t *testing.T) {
	w := newWorld(t)
	w.payLists()
	c := w.client(w.caller("provisioning"))
	key, err := cert.GenerateKey(rand.Reader, cert.P256)
	w.must(err)
	der := w.csr(key, &x509.CertificateRequest{})
	schemas := resultSchemas(t)
	answers := make(map[string][]string) // the command line that checks those of a method
	for i, call := range []struct {
		method string
		params object
		ok     bool
	}{
		{"ca.issue", object{"purpose": "user", "cn": "alice", "plan": true, "key_type": "RSA-3072"}, true},
		{"ca.issue", object{"purpose": "user", "cn": "alice", "request_id": "one", "sans": object{"email": []string{"alice@example.org"}}}, true},
		{"ca.issue", object{"purpose": "user", "cn": "alice", "request_id": "two", "csr": der}, true},
		{"ca.issue", object{"purpose": "user", "cn": "alice\n"}, false},
		{"ca.renew", object{"cn": "alice", "purpose": "user", "plan": true}, true},
		{"ca.renew", object{"cn": "alice", "purpose": "user"}, true},
		{"ca.renew", object{"cn": "alice", "purpose": "user"}, false}, // repeated
		{"ca.hold", object{"cn": "alice", "plan": true}, true},
		{"ca.hold", object{"cn": "alice"}, true},
		{"ca.status", object{"cn": "alice"}, true},
		{"ca.release", object{"cn": "alice", "plan": true}, true},
		{"ca.release", object{"cn": "alice"}, true},
		{"ca.revoke", object{"cn": "alice", "plan": true}, true},
		{"ca.revoke", object{"cn": "alice"}, true},
		{"ca.retire", object{"cn": "alice", "plan": true}, false},
		{"ca.issue", object{"purpose": "user", "cn": "bob"}, true},
		{"ca.retire", object{"cn": "bob"}, true},
		{"ca.find", object{"limit": 2}, true},
		{"ca.expiring", object{"within_days": 825, "limit": 1}, true},
		{"ca.chain", object{}, true},
		{"ca.whoami", object{}, true},
	} {
		var a client.Answer
		w.must(c.Call(t.Context(), call.method, call.params, &a))
		if a.OK != call.ok {
			t.Errorf("%s %v: %s", call.method, call.params, a.Msg)
		}
		text, err := json.Marshal(a)
		w.must(err)
		answers[call.method] = append(answers[call.method], "-i", w.write(fmt.Sprintf("answer%d.json", i), string(text)))
	}
	for method, schema := range schemas {
		if answers[method] == nil {
			t.Errorf("%s is new: have its answers checked here", method)
		}
		args := append(answers[method], w.write("schema.json", schema))
		if out, err := exec.Command("/usr/bin/jsonschema", args...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", method, err, out)
		}
	}
}

// resultSchemas gives the schema of each method's answer.
func resultSchemas(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../docs/openrpc.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Methods []struct {
			Name   string
			Result struct{ Schema json.RawMessage }
		}
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	schemas := make(map[string]string)
	for _, m := range doc.Methods {
		schemas[m.Name] = string(m.Result.Schema)
	}
	return schemas
}
