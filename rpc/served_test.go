package rpc

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/rpc/client"
	"github.com/chancery-ca/chancery/store"
)

// booked is a certificate of the served matrix.
type booked struct {
	Question // its names, and its owner
	held     bool
}

// TestServedMatrix compares what a running service does with the oracle. Of each name there is a live certificate
// and one on hold, by several callers.
func TestServedMatrix(t *testing.T) {
	conf := genConfig(rand.New(rand.NewPCG(3, 4)), 24)
	w := newWorld(t, func(o *Options) { o.Config = conf })
	var books []booked
	for i, q := range issuedNames() {
		owners := append(mindful(conf, q), "somebody")
		for n, held := range []bool{false, true} {
			b := booked{q, held}
			b.Owner = owners[(i+n)%len(owners)]
			w.book(b)
			books = append(books, b)
		}
	}
	decided := make(map[bool]int)
	for i, c := range conf.Callers {
		own := w.client(w.caller(c.Name))
		for j, q := range questions(c.Name) {
			if q.Owner != "" || q.Certificates > 0 || q.KeyType == "RSA-3072" || (q.Reason != "" || q.ValidDays > 0) && (i+j)%3 > 0 {
				continue // who owns them and how many they are, the books say
			}
			want := expected(c.Grants, q, books)
			decided[want]++
			if got, said := w.served(own, q); got != want {
				t.Errorf("%+v: %v, want %v of %+v: %s", q, got, want, c.Grants, said)
			}
		}
	}
	if decided[true] < 50 || decided[false] < 50 {
		t.Errorf("allowed and not: %v", decided)
	}
}

// mindful gives the callers who may change what is theirs of a name, and nothing else of it.
func mindful(conf Config, q Question) (callers []string) {
	for _, c := range conf.Callers {
		for _, q.Method = range []string{"ca.hold", "ca.release", "ca.revoke"} {
			mine, others := q, q
			mine.Caller, mine.Owner, mine.SANs = c.Name, c.Name, cert.SANs{}
			others.Caller, others.Owner, others.SANs = c.Name, "somebody", cert.SANs{}
			if oracle(c.Grants, mine) > 0 && oracle(c.Grants, others) == 0 && !slices.Contains(callers, c.Name) {
				callers = append(callers, c.Name)
			}
		}
	}
	return callers
}

// expected is what the service has to do with a question, by the oracle and what there is.
func expected(grants []Grant, q Question, books []booked) bool {
	if q.Method == "ca.issue" || q.Method == "ca.chain" {
		return oracle(grants, q) > 0
	}
	of := func(b booked) Question {
		one := q
		one.Purpose, one.Owner = b.Purpose, b.Owner
		if q.Method == "ca.renew" {
			one.SANs = b.SANs
		}
		return one
	}
	var hit []booked
	for _, b := range books {
		if b.CN != q.CN || b.Purpose != q.Purpose && q.Method != "ca.retire" {
			continue
		}
		seen := of(b)
		seen.Method, seen.KeyType, seen.ValidDays, seen.Reason, seen.SANs = "ca.status", "", 0, "", cert.SANs{}
		visible := false
		for _, g := range grants {
			if slices.Contains(g.Methods, q.Method) {
				g.Methods = []string{"ca.status"}
				visible = visible || oracle([]Grant{g}, seen) > 0
			}
		}
		switch q.Method {
		case "ca.status", "ca.find":
			if visible {
				return true
			}
			continue
		case "ca.expiring":
			if visible && !b.held {
				return true
			}
			continue
		case "ca.renew":
			if !b.held && oracle(grants, of(b)) > 0 {
				return true
			}
			continue
		case "ca.release":
			visible = visible && b.held
		}
		if !visible {
			continue
		}
		if oracle(grants, of(b)) == 0 {
			return false
		}
		if q.Method != "ca.hold" || !b.held {
			hit = append(hit, b)
		}
	}
	if slices.Contains([]string{"ca.status", "ca.find", "ca.expiring", "ca.renew"}, q.Method) {
		return false
	}
	for _, b := range hit {
		one := of(b)
		if one.Certificates = len(hit); oracle(grants, one) == 0 {
			return false
		}
	}
	return len(hit) > 0
}

// book issues a certificate for a caller, and puts it on hold.
func (w *world) book(b booked) {
	w.Helper()
	n, err := name.Canonical(cert.Purpose(b.Purpose), b.CN)
	w.must(err)
	sans, err := name.CanonicalSANs(cert.Purpose(b.Purpose), n, b.SANs)
	w.must(err)
	call := ca.Call{Who: audit.Actor{Kind: audit.ByCaller, Name: b.Owner}, RequestID: fmt.Sprintf("%s-%s-%v", b.Purpose, b.CN, b.held)}
	call.BodySHA256 = cert.SHA256([]byte(call.RequestID))
	issued, err := w.authority.Issue(w.Context(), call, ca.IssueRequest{Purpose: cert.Purpose(b.Purpose), Name: n, SANs: sans})
	w.must(err)
	if b.held {
		_, err := w.store.Update(w.Context(), operator, func(tx *store.Tx) (audit.Event, error) {
			rev, err := tx.Revoke(issued.Serial, tx.Now(), cert.CertificateHold)
			return &audit.RevokeDone{RequestID: call.RequestID, Reason: cert.CertificateHold, Revoked: []audit.Revocation{rev}}, err
		})
		w.must(err)
	}
}

// served asks the service, and tells whether its grants let the caller.
func (w *world) served(c *client.Client, q Question) (bool, string) {
	w.Helper()
	params := object{"purpose": q.Purpose, "cn": q.CN, "plan": true}
	give := func(member string, value any, there bool) {
		if there {
			params[member] = value
		}
	}
	switch q.Method {
	case "ca.issue":
		params["sans"] = q.SANs
		fallthrough
	case "ca.renew":
		give("key_type", q.KeyType, q.KeyType != "")
		give("valid_days", q.ValidDays, q.ValidDays != 0)
	case "ca.revoke":
		give("reason", q.Reason, q.Reason != "")
	case "ca.retire":
		give("reason", q.Reason, q.Reason != "")
		delete(params, "purpose")
	case "ca.status":
		params = object{"cn": q.CN}
	case "ca.find":
		delete(params, "plan")
	case "ca.expiring":
		params = object{"purpose": q.Purpose, "within_days": expiringMaxDays, "limit": maxPage}
	case "ca.chain":
		params = object{"purpose": q.Purpose}
	}
	var a client.Answer
	w.must(c.Call(w.Context(), q.Method, params, &a))
	d := detail(w, a)
	if q.Method == "ca.issue" {
		return d["code"] != "policy.denied", a.Msg
	}
	if !slices.Contains([]string{"ca.status", "ca.find", "ca.expiring"}, q.Method) || !a.OK {
		return a.OK, a.Msg
	}
	// These leave out what they may not tell.
	return slices.ContainsFunc(d["certificates"].([]any), func(one any) bool {
		m := one.(map[string]any)
		return m["cn"] == q.CN && m["purpose"] == q.Purpose
	}), a.Msg
}
