package rpc

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/rpc/client"
)

// TestPlanIsWhatComes: a plan tells what the certificate then is, whatever kind of key it gets.
func TestPlanIsWhatComes(t *testing.T) {
	w := newWorld(t)
	c := w.client(w.caller("provisioning"))
	for i, ask := range []object{
		{"purpose": "user", "cn": "alice", "sans": object{"email": []string{"alice@EXAMPLE.org"}}},
		{"purpose": "user", "cn": "bob", "key_type": "P-384", "valid_days": 3},
		{"purpose": "user", "cn": "carol", "key_type": "RSA-2048", "sans": object{"email": []string{"carol@example.org"}}},
		{"purpose": "server", "cn": "WWW.example.org", "sans": object{"dns": []string{"www.example.org", "a.example.org"}, "ip": []string{"192.0.2.7"}}},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			ask["plan"] = true
			signed := w.signatures()
			plan := planned(t, c, "ca.issue", ask)
			if w.signatures() != signed {
				t.Fatal("a plan signed something")
			}
			if want, ok := ask["key_type"]; ok && want != string(plan.Plan.KeyType) {
				t.Errorf("planned a key of kind %s", plan.Plan.KeyType)
			}
			delete(ask, "plan")
			ask["planned"] = plan.LogIndex
			var a client.Answer
			w.must(c.Call(t.Context(), "ca.issue", ask, &a))
			if !a.OK {
				t.Fatal(a.Msg)
			}
			plan.matches(t, a)
		})
	}
}

// aPlan is the detail of a plan for an issue.
type aPlan struct {
	LogIndex int    `json:"log_index"`
	Issuer   string `json:"issuer"`
	Plan     struct {
		Rule       string          `json:"rule"`
		CN         string          `json:"cn"`
		SANs       cert.SANs       `json:"sans"`
		KeyType    cert.KeyType    `json:"key_type"`
		ValidHours int             `json:"valid_hours"`
		Extensions []planExtension `json:"extensions"`
	} `json:"plan"`
}

func planned(t *testing.T, c *client.Client, method string, params object) (p aPlan) {
	t.Helper()
	var a client.Answer
	if err := c.Call(t.Context(), method, params, &a); err != nil || !a.OK {
		t.Fatalf("%s, %v", a.Msg, err)
	}
	if err := json.Unmarshal(a.Detail, &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// matches compares the plan with the certificate in an answer.
func (p aPlan) matches(t *testing.T, a client.Answer) {
	t.Helper()
	block, _ := pem.Decode([]byte(detail(t, a)["certificate"].(string)))
	is, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	var extensions []planExtension
	for _, e := range is.Extensions {
		one := planExtension{e.Id.String(), e.Critical, hex.EncodeToString(e.Value)}
		if one.OID == "2.5.29.14" {
			one.Value = ""
		}
		extensions = append(extensions, one)
	}
	var addresses []string
	for _, ip := range is.IPAddresses {
		addresses = append(addresses, ip.String())
	}
	kind, err := cert.KeyTypeOf(is.PublicKey)
	if err != nil || kind != p.Plan.KeyType || is.Subject.CommonName != p.Plan.CN || detail(t, a)["issuer"] != p.Issuer ||
		!slices.Equal(is.DNSNames, p.Plan.SANs.DNS) || !slices.Equal(is.EmailAddresses, p.Plan.SANs.Email) || !slices.Equal(addresses, p.Plan.SANs.IP) ||
		!slices.Equal(extensions, p.Plan.Extensions) || int(is.NotAfter.Sub(is.NotBefore).Hours()+0.001) != p.Plan.ValidHours {
		t.Errorf("planned %+v\nbut it is %s, %s %v %v %v, %v", p, kind, is.Subject, is.DNSNames, is.EmailAddresses, addresses, extensions)
	}
}

// TestPlanBinds: a call that names a plan does what was planned, or nothing.
func TestPlanBinds(t *testing.T) {
	w := newWorld(t)
	w.payLists()
	own := w.caller("provisioning")
	c, other := w.client(own), w.client(w.caller("slow"))
	ask := func(c *client.Client, method string, params object, want string) map[string]any {
		t.Helper()
		var a client.Answer
		w.must(c.Call(t.Context(), method, params, &a))
		d := detail(t, a)
		if d["code"] != want {
			t.Errorf("%s %v: %s (%s), want %s", method, params, d["code"], a.Msg, want)
		}
		return d
	}
	alice := func(more ...any) object {
		o := object{"purpose": "user", "cn": "alice"}
		for i := 0; i < len(more); i += 2 {
			o[more[i].(string)] = more[i+1]
		}
		return o
	}
	plan := ask(c, "ca.issue", alice("plan", true), "plan.issue")["log_index"]
	foreign := ask(other, "ca.issue", alice("plan", true), "plan.issue")["log_index"]
	refusal := ask(c, "ca.issue", object{"purpose": "user", "cn": "al ice\t"}, "name.control")["log_index"]
	signed := w.signatures()
	for _, none := range []any{foreign, refusal, 0, 1, -1, 1 << 30} { // 0 is what many a client makes of no index at all
		ask(c, "ca.issue", alice("planned", none), "plan.unknown")
	}
	ask(c, "ca.issue", alice("planned", plan, "valid_days", 3), "plan.unknown")
	ask(c, "ca.renew", object{"cn": "alice", "planned": plan}, "plan.unknown")
	ask(c, "ca.issue", alice("planned", plan, "plan", true), "plan.issue")

	// The grant that allows it becomes another one, and the request id stays free.
	before, after := testConfig(), testConfig()
	after.Callers[0].Grants = append([]Grant{{Methods: []string{"ca.chain"}, Purposes: []cert.Purpose{cert.User}}}, after.Callers[0].Grants...)
	after.Callers[0].Grants[1].Methods = slices.DeleteFunc(slices.Clone(after.Callers[0].Grants[1].Methods), func(m string) bool { return m == "ca.chain" })
	w.apply(after, false)
	ask(c, "ca.issue", alice("planned", plan, "request_id", "one"), "plan.changed")
	ask(c, "ca.issue", alice("planned", plan, "plan", true), "plan.changed")
	if n := w.signatures(); n != signed {
		t.Fatalf("%d certificates for plans that did not hold", n-signed)
	}
	w.apply(before, false)
	first := ask(c, "ca.issue", alice("planned", plan, "request_id", "one"), "issued")
	w.apply(after, false)
	if again := ask(c, "ca.issue", alice("planned", plan, "request_id", "one"), "issued"); again["serial"] != first["serial"] || again["password"] != first["password"] {
		t.Errorf("%v, and again %v", first["serial"], again["serial"])
	}

	// What a revocation would hit is what it hits.
	plan = ask(c, "ca.revoke", object{"cn": "alice", "plan": true}, "plan.revoke")["log_index"]
	second := ask(c, "ca.issue", alice("request_id", "two"), "issued")
	ask(c, "ca.revoke", object{"cn": "alice", "planned": plan}, "plan.changed")
	for _, one := range ask(c, "ca.status", object{"cn": "alice"}, "status")["certificates"].([]any) {
		if state := one.(map[string]any)["state"]; state != "live" {
			t.Errorf("%v", one)
		}
	}
	plan = ask(c, "ca.revoke", object{"cn": "alice", "plan": true}, "plan.revoke")["log_index"]
	done := ask(c, "ca.revoke", object{"cn": "alice", "planned": plan, "request_id": "three"}, "revoked")
	var hit []any
	for _, one := range done["revoked"].([]any) {
		hit = append(hit, one.(map[string]any)["serial"])
	}
	if !slices.Equal(hit, []any{first["serial"], second["serial"]}) {
		t.Errorf("%v", hit)
	}
	ask(c, "ca.revoke", object{"cn": "alice", "planned": plan, "request_id": "three"}, "revoked")
}

// TestPlanOfARetry: under a request id that was used, nothing else would happen, and a plan says so.
func TestPlanOfARetry(t *testing.T) {
	w := newWorld(t)
	c := w.client(w.caller("provisioning"))
	ask := func(method string, params object) (d map[string]any, msg string) {
		t.Helper()
		var a client.Answer
		w.must(c.Call(t.Context(), method, params, &a))
		return detail(t, a), a.Msg
	}
	issued, _ := ask("ca.issue", object{"purpose": "user", "cn": "alice", "request_id": "one"})
	signed := w.signatures()
	plan, msg := ask("ca.issue", object{"purpose": "user", "cn": "alice", "request_id": "one", "plan": true})
	if plan["code"] != "plan.issue" || plan["serial"] != issued["serial"] || plan["not_after"] != issued["not_after"] || !strings.Contains(msg, "was issued for this request_id") {
		t.Errorf("%s: %v", msg, plan)
	}
	if other, msg := ask("ca.issue", object{"purpose": "user", "cn": "alice", "request_id": "two", "planned": plan["log_index"]}); other["code"] != "plan.changed" {
		t.Errorf("another certificate by the plan of none: %s", msg)
	}
	again, _ := ask("ca.issue", object{"purpose": "user", "cn": "alice", "request_id": "one", "planned": plan["log_index"]})
	if again["serial"] != issued["serial"] || w.signatures() != signed {
		t.Errorf("%v; the first was %v", again["serial"], issued["serial"])
	}
}

// TestPlannedChanges: what would become of a certificate, of its entry in the list and in the directory.
func TestPlannedChanges(t *testing.T) {
	w := newWorld(t)
	w.payLists()
	c := w.client(w.caller("provisioning"))
	do := func(method string, params object) map[string]any {
		t.Helper()
		var a client.Answer
		w.must(c.Call(t.Context(), method, params, &a))
		if !a.OK {
			t.Fatalf("%s: %s", method, a.Msg)
		}
		return detail(t, a)
	}
	do("ca.issue", object{"purpose": "user", "cn": "alice"})
	for _, step := range []struct {
		method               string
		more                 object
		state, reason, lists string
	}{
		{"ca.hold", nil, "live", "certificateHold", "enter"},
		{"ca.release", nil, "revoked", "", "remove"},
		{"ca.retire", nil, "live", "cessationOfOperation", "enter"},
		{"ca.revoke", object{"reason": "keyCompromise"}, "revoked", "keyCompromise", "change"},
	} {
		ask := object{"cn": "alice", "plan": true}
		for k, v := range step.more {
			ask[k] = v
		}
		d := do(step.method, ask)
		changes := d["changes"].([]any)
		one := changes[0].(map[string]any)
		if len(changes) != 1 || one["state"] != step.state || one["reason"] != step.reason || one["list"] != step.lists ||
			one["rule"] != "provisioning/1" || one["directory"] != "none" {
			t.Errorf("%s: %v", step.method, d)
		}
		delete(ask, "plan")
		ask["planned"] = d["log_index"]
		do(step.method, ask)
	}
}
