package keyroom

import (
	"bytes"
	"sync"
	"testing"

	"github.com/chancery-ca/chancery/ca/signer"
)

// TestSettle asks how intents ended: what was signed comes back to the octet, what was not is voided for
// good, and a restart changes neither.
func TestSettle(t *testing.T) {
	h := newHall(t)
	w, der := h.signed("alice", nil)
	const index = 1
	settle := func(index int64) signer.Result {
		t.Helper()
		r := h.ask(signer.Call{Kind: signer.Settle, Index: index})
		if r.Refused != nil {
			t.Fatal(r.Refused)
		}
		return r
	}
	check := func() {
		t.Helper()
		before := h.room.Hello().State
		if r := settle(index); !bytes.Equal(r.DER, der) || r.Voided {
			t.Errorf("a signed intent settles as %+v", r)
		}
		if r := h.ask(signer.Call{Kind: signer.SignCert, Index: index, CSR: w.csr}); !bytes.Equal(r.DER, der) {
			t.Errorf("the same intent again: %+v", r)
		}
		// The journal decides, so the CSR is of no more interest.
		if r := h.ask(signer.Call{Kind: signer.SignCert, Index: index}); !bytes.Equal(r.DER, der) {
			t.Errorf("the same intent without a CSR: %+v", r)
		}
		h.equal(before)
	}
	check()
	h.restart()
	check()

	bob := h.want("bob", nil, nil)
	open := h.add(alice, bob.IssueIntent)
	if r := h.ask(signer.Call{Kind: signer.Lookup, Index: open}); r.DER != nil || r.Refused != nil {
		t.Errorf("looking up an open intent: %+v", r)
	}
	for range 2 {
		if r := settle(open); r.DER != nil || !r.Voided {
			t.Errorf("an intent that was not signed settles as %+v", r)
		}
		if r := h.ask(signer.Call{Kind: signer.SignCert, Index: open, CSR: bob.csr}); r.Refused == nil || r.Refused.Code != "serial.voided" {
			t.Errorf("signing a voided serial: %+v", r)
		}
		if s := h.room.Hello().State; s.Certificates != 1 || s.Voided != 1 {
			t.Errorf("%d certificates, %d voided", s.Certificates, s.Voided)
		}
		h.restart()
	}

	again := h.add(alice, w.IssueIntent) // the same serial and TBS in another leaf
	if r := h.ask(signer.Call{Kind: signer.SignCert, Index: again, CSR: w.csr}); !bytes.Equal(r.DER, der) {
		t.Errorf("the same serial and TBS: %+v", r)
	}
	other := h.want("mallory", func(o *wanted) { o.Serial = w.Serial }, nil)
	if r := h.ask(signer.Call{Kind: signer.Settle, Index: h.add(alice, other.IssueIntent)}); r.Refused == nil || r.Refused.Code != "serial.signed" {
		t.Errorf("settling another certificate with the same serial: %+v", r)
	}
	if got := tool(t, der, "openssl", "x509", "-inform", "DER", "-noout", "-subject", "-serial"); got != "subject=CN = alice\nserial="+string(bytes.ToUpper([]byte(w.Serial)))+"\n" {
		t.Errorf("openssl reads %q", got)
	}
}

// TestSettleAndSignInOneBatch has the order in the batch decide.
func TestSettleAndSignInOneBatch(t *testing.T) {
	h := newHall(t)
	c := h.dial()
	defer c.close()
	w := h.want("alice", nil, nil)
	sign := signer.Call{Kind: signer.SignCert, Index: h.add(alice, w.IssueIntent), CSR: w.csr}
	settle := signer.Call{Kind: signer.Settle, Index: sign.Index}
	r := c.ask(h.batch(c.state, settle, sign)).Results
	if !r[0].Voided || r[1].Refused == nil || r[1].Refused.Code != "serial.voided" {
		t.Errorf("void, then sign: %+v", r)
	}
	w = h.want("bob", nil, nil)
	sign = signer.Call{Kind: signer.SignCert, Index: h.add(alice, w.IssueIntent), CSR: w.csr}
	settle.Index = sign.Index
	r = c.ask(h.batch(c.state, sign, sign, settle)).Results
	if len(r[0].DER) == 0 || !bytes.Equal(r[0].DER, r[1].DER) || !bytes.Equal(r[0].DER, r[2].DER) || r[2].Voided {
		t.Errorf("sign twice, then settle: %+v", r)
	}
	carol := h.want("carol", nil, nil)
	same := h.want("mallory", func(o *wanted) { o.Serial = carol.Serial }, nil)
	sign = signer.Call{Kind: signer.SignCert, Index: h.add(alice, carol.IssueIntent), CSR: carol.csr}
	again := signer.Call{Kind: signer.SignCert, Index: h.add(alice, same.IssueIntent), CSR: same.csr}
	r = c.ask(h.batch(c.state, sign, again)).Results
	if len(r[0].DER) == 0 || r[1].Refused == nil || r[1].Refused.Code != "serial.signed" {
		t.Errorf("two certificates with one serial: %+v", r)
	}
	if s := h.room.Hello().State; s.Certificates != 2 || s.Voided != 1 {
		t.Errorf("%d certificates, %d voided", s.Certificates, s.Voided)
	}
}

// TestSettleRacesSign lets two daemons ask at once, one to sign and one to settle: whoever comes first,
// there is one outcome, and both learn it.
func TestSettleRacesSign(t *testing.T) {
	h := newHall(t)
	outcomes := make(map[bool]int)
	for range 40 {
		w := h.want("alice", nil, nil)
		index := h.add(alice, w.IssueIntent)
		calls := []signer.Call{{Kind: signer.SignCert, Index: index, CSR: w.csr}, {Kind: signer.Settle, Index: index}}
		results := make([]signer.Result, len(calls))
		begin := make(chan struct{})
		var both sync.WaitGroup
		for i, call := range calls {
			c := h.dial()
			batch := h.batch(c.state, call)
			both.Go(func() {
				<-begin
				reply := c.ask(batch)
				if reply.Stale { // the other one brought the leaf
					reply = c.ask(h.batch(reply.State, call))
				}
				results[i] = reply.Results[0]
				c.close()
			})
		}
		close(begin)
		both.Wait()
		signed, settled := results[0], results[1]
		switch {
		case signed.Refused == nil && bytes.Equal(signed.DER, settled.DER) && !settled.Voided:
		case signed.Refused != nil && signed.Refused.Code == "serial.voided" && settled.Voided && settled.DER == nil:
		default:
			t.Fatalf("signed: %+v\nsettled: %+v", signed, settled)
		}
		outcomes[settled.Voided]++
		stays := h.ask(signer.Call{Kind: signer.Lookup, Index: index})
		if !bytes.Equal(stays.DER, signed.DER) {
			t.Fatalf("looked up afterwards: %+v", stays)
		}
	}
	if s := h.room.Hello().State; int(s.Certificates) != outcomes[false] || int(s.Voided) != outcomes[true] {
		t.Errorf("outcomes %v, but the room says %+v", outcomes, s)
	}
}
