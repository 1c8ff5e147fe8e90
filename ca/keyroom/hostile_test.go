package keyroom

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/profile"
	"github.com/chancery-ca/chancery/ca/signer"
)

// attack is what a hostile daemon tries on a running room, and the code with which it must fail.
type attack struct {
	name, code string
	try        func(*hall, *raw) signer.Reply
	// whole says that the batch is refused as a whole: not even its leaves are taken.
	whole bool
}

// scene is what the attacks aim at: a signed serial, a voided one, a list with number 5.
type scene struct {
	signed, voided wanted
	opened         int64 // index of a leaf that is no intent
}

func newScene(h *hall) scene {
	var s scene
	s.signed, _ = h.signed("alice", nil)
	s.voided = h.want("bob", nil, nil)
	if r := h.ask(signer.Call{Kind: signer.Settle, Index: h.add(alice, s.voided.IssueIntent)}); !r.Voided {
		h.Fatalf("settle: %+v", r)
	}
	h.list("5")
	return s
}

// TestHostileDaemon tries every attack on one running room, one at a time. Each has its own refusal, and
// nothing that the room has signed, voided or listed is moved, also after a restart.
func TestHostileDaemon(t *testing.T) {
	h := newHall(t)
	attacks := slices.Concat(attacksOnTheLog(), attacksOnCertificates(newScene(h)), attacksOnLists())
	codes := make(map[string]string)
	before := h.room.Hello().State
	for _, a := range attacks {
		t.Run(strings.ReplaceAll(a.name, " ", "-"), func(t *testing.T) {
			h := *h
			h.T = t
			sequence := h.room.Hello().State.Sequence
			c := h.dial()
			defer c.close()
			reply := a.try(&h, c)
			if got := codeOf(reply); got != a.code {
				t.Fatalf("got code %q, want %q; reply %+v", got, a.code, reply)
			}
			if a.whole != (reply.Refused != nil) {
				t.Errorf("refused as a whole: %v, want %v", reply.Refused != nil, a.whole)
			}
			if a.whole && h.room.Hello().State.Sequence != sequence {
				t.Error("a batch that was refused as a whole is in the journal")
			}
			if other, taken := codes[a.code]; taken {
				t.Errorf("%q and %q have the same code", a.name, other)
			}
			codes[a.code] = a.name
			h.same(before)
		})
	}
	if want := 16; len(codes) != want {
		t.Errorf("%d codes for %d attacks: %v", len(codes), want, slices.Sorted(maps.Keys(codes)))
	}
	last := h.room.Hello().State
	h.restart()
	h.equal(last)
	h.same(before)
	h.signed("carol", nil) // and the room still works
	h.list("6")
}

// send enters the intent and asks for its certificate with the CSR in w.
func send(h *hall, c *raw, w wanted) signer.Reply {
	return c.ask(h.batch(c.state, signer.Call{Kind: signer.SignCert, Index: h.add(alice, w.IssueIntent), CSR: w.csr}))
}

func attacksOnTheLog() []attack {
	// attempt is a batch that wants a certificate with an honest intent that is not on the log.
	attempt := func(h *hall, log *memLog, from int64) signer.Batch {
		w := h.want("mallory", nil, nil)
		leaf := encode(h, w.IssueIntent)
		index := log.add(leaf)
		return signer.Batch{
			From: from, FromRoot: log.root(from), Leaves: log.from(from, index+1), Root: log.root(index + 1),
			Calls: []signer.Call{{Kind: signer.SignCert, Index: index, CSR: w.csr}},
		}
	}
	return []attack{
		{"a fork of equal size", "log.fork", func(h *hall, c *raw) signer.Reply {
			fork := h.log.fork()
			fork.leaves[len(fork.leaves)-1] = encode(h, &audit.ServiceStopped{})
			return c.ask(attempt(h, fork, c.state.Size))
		}, true},
		{"a smaller tree", "log.smaller", func(h *hall, c *raw) signer.Reply {
			smaller := h.log.fork()
			smaller.leaves = smaller.leaves[:2]
			return c.ask(attempt(h, smaller, 2))
		}, true},
		{"a gap in the leaves", "log.gap", func(h *hall, c *raw) signer.Reply {
			longer := h.log.fork()
			longer.add(encode(h, &audit.ServiceStopped{}))
			return c.ask(attempt(h, longer, c.state.Size+1))
		}, true},
		{"one flipped bit in a leaf", "log.root", func(h *hall, c *raw) signer.Reply {
			var last signer.Reply
			good := attempt(h, h.log.fork(), c.state.Size)
			for i := range good.Leaves[0] {
				flipped := good
				flipped.Leaves = [][]byte{slices.Clone(good.Leaves[0])}
				flipped.Leaves[0][i] ^= 1 << (i % 8)
				last = c.ask(flipped)
				if code := codeOf(last); code != "log.root" {
					h.Fatalf("octet %d: code %q", i, code)
				}
			}
			return last
		}, true},
		{"a leaf with repeated or reordered members", "leaf.not_canonical", func(h *hall, c *raw) signer.Reply {
			var last signer.Reply
			for _, spoil := range []func(string) string{
				func(s string) string { return strings.Replace(s, `"actor":`, `"v":1,"actor":`, 1) },
				func(s string) string {
					return strings.Replace(s, `"event":{`, `"event":{"serial":"01",`, 1)
				},
				func(s string) string { return `{"time"` + strings.SplitN(s, `"time"`, 2)[1] },
				func(s string) string {
					rest := strings.TrimPrefix(s, `{"v":1,`)
					member, rest, _ := strings.Cut(rest, ",")
					return "{" + member + `,"v":1,` + rest
				},
				func(s string) string { return s + " " },
			} {
				b := attempt(h, h.log.fork(), c.state.Size)
				spoiled := spoil(string(b.Leaves[0]))
				if spoiled == string(b.Leaves[0]) {
					h.Fatal("the leaf was not spoiled")
				}
				b.Leaves[0] = []byte(spoiled)
				log := h.log.fork()
				log.add(b.Leaves[0])
				b.Root = log.root(int64(len(log.leaves)))
				if last = c.ask(b); codeOf(last) != "leaf.not_canonical" {
					h.Fatalf("%s: %+v", spoiled, last)
				}
			}
			return last
		}, true},
	}
}

func attacksOnCertificates(s scene) []attack {
	return []attack{
		{"a wrong index", "index.kind", func(h *hall, c *raw) signer.Reply {
			w := h.want("mallory", nil, nil)
			return c.ask(h.batch(c.state, signer.Call{Kind: signer.SignCert, Index: s.opened, CSR: w.csr}))
		}, false},
		{"an index beyond the log", "index.unknown", func(h *hall, c *raw) signer.Reply {
			w := h.want("mallory", nil, nil)
			size, _ := h.log.Head()
			for _, index := range []int64{-1, size + 1, 1 << 62} {
				if code := codeOf(c.ask(h.batch(c.state, signer.Call{Kind: signer.SignCert, Index: index, CSR: w.csr}))); code != "index.unknown" {
					h.Fatalf("index %d: %q", index, code)
				}
			}
			return c.ask(h.batch(c.state, signer.Call{Kind: signer.SignCert, Index: size, CSR: w.csr}))
		}, false},
		{"another serial's leaf", "csr.other_key", func(h *hall, c *raw) signer.Reply {
			mine, other := h.want("mallory", nil, nil), h.want("dave", nil, nil)
			other.csr = mine.csr
			return send(h, c, other)
		}, false},
		{"a bad CSR signature", "csr.signature", func(h *hall, c *raw) signer.Reply {
			w := h.want("mallory", nil, nil)
			w.csr = badSignature(h, w.csr)
			return send(h, c, w)
		}, false},
		{"a certificate with one changed extension", "tbs.mismatch", func(h *hall, c *raw) signer.Reply {
			return send(h, c, h.want("mallory", nil, func(w *wanted) { w.TBSSHA256 = otherExtension(h, w) }))
		}, false},
		{"a second signature for a signed serial", "serial.signed", func(h *hall, c *raw) signer.Reply {
			return send(h, c, h.want("mallory", func(w *wanted) { w.Serial = s.signed.Serial }, nil))
		}, false},
		{"a signature for a voided serial", "serial.voided", func(h *hall, c *raw) signer.Reply {
			if reply := send(h, c, h.want("mallory", func(w *wanted) { w.Serial = s.voided.Serial }, nil)); codeOf(reply) != "serial.voided" {
				return reply
			}
			return send(h, c, s.voided)
		}, false},
		{"a serial that is revoked already", "serial.revoked", func(h *hall, c *raw) signer.Reply {
			w := h.want("mallory", nil, nil)
			h.revoke(w.Serial, cert.Superseded)
			return send(h, c, w)
		}, false},
	}
}

func attacksOnLists() []attack {
	ask := func(h *hall, c *raw, number string, edit func(*audit.CRLIntent)) signer.Reply {
		intent := h.crlIntent(number)
		edit(intent)
		return c.ask(h.batch(c.state, signer.Call{Kind: signer.SignCRL, Index: h.add(daemon, intent)}))
	}
	return []attack{
		{"a CRL intent with a lower number", "crl.number", func(h *hall, c *raw) signer.Reply {
			for _, number := range []string{"5", "0", "-6", "+6", "06", "6.0", "0x6", "", strings.Repeat("9", 70) + "x"} {
				if code := codeOf(ask(h, c, number, func(*audit.CRLIntent) {})); code != "crl.number" {
					h.Fatalf("number %q: code %q", number, code)
				}
			}
			return ask(h, c, "4", func(*audit.CRLIntent) {})
		}, false},
		{"a future time", "crl.this_update", func(h *hall, c *raw) signer.Reply {
			if r := ask(h, c, "6", func(i *audit.CRLIntent) { i.ThisUpdate = i.ThisUpdate.Add(-clockSkew - time.Second) }); codeOf(r) != "crl.this_update" {
				return r
			}
			return ask(h, c, "6", func(i *audit.CRLIntent) { i.ThisUpdate = i.ThisUpdate.Add(clockSkew + time.Second) })
		}, false},
		{"a distant nextUpdate", "crl.next_update", func(h *hall, c *raw) signer.Reply {
			for _, d := range []time.Duration{-time.Second, 0} {
				if r := ask(h, c, "6", func(i *audit.CRLIntent) { i.NextUpdate = i.ThisUpdate.Add(d) }); codeOf(r) != "crl.next_update" {
					return r
				}
			}
			return ask(h, c, "6", func(i *audit.CRLIntent) { i.NextUpdate = i.ThisUpdate.Add(8*24*time.Hour + time.Second) })
		}, false},
	}
}

func encode(h *hall, event audit.Event) []byte {
	leaf, err := audit.Encode(audit.Leaf{Time: h.clock.now(), Actor: alice, Event: event})
	if err != nil {
		h.Fatal(err)
	}
	return leaf
}

// badSignature gives a CSR whose signature is well-formed and of something else.
func badSignature(h *hall, csr []byte) []byte {
	var parts struct{ Info, Algorithm, Signature asn1.RawValue }
	if _, err := asn1.Unmarshal(csr, &parts); err != nil {
		h.Fatal(err)
	}
	var other struct{ Info, Algorithm, Signature asn1.RawValue }
	if _, err := asn1.Unmarshal(h.want("other", nil, nil).csr, &other); err != nil {
		h.Fatal(err)
	}
	parts.Signature = other.Signature
	der, err := asn1.Marshal(parts)
	if err != nil || bytes.Equal(der, csr) {
		h.Fatal("the CSR was not spoiled: ", err)
	}
	return der
}

// otherExtension is the hash of the TBS that w asks for, but for one extension: its key usage.
func otherExtension(h *hall, w *wanted) string {
	issuer := h.room.issuers[w.Issuer]
	der, _, err := issuer.builder.Precertificate(profile.Request{
		Serial: w.Serial, Purpose: w.Purpose, CN: w.CN, Public: w.key.Public(), NotBefore: w.NotBefore, NotAfter: w.NotAfter,
	})
	if err != nil {
		h.Fatal(err)
	}
	template := parseCert(h, der)
	template.KeyUsage |= x509.KeyUsageKeyAgreement
	changed, err := x509.CreateCertificate(rand.Reader, template, issuer.cert, w.key.Public(), issuer.key)
	if err != nil {
		h.Fatal(err)
	}
	if a, b := parseCert(h, changed).RawTBSCertificate, parseCert(h, der).RawTBSCertificate; bytes.Equal(a, b) || len(a) != len(b) {
		h.Fatalf("the TBS was not changed in one place: %d octets, %d octets", len(a), len(b))
	}
	return cert.SHA256(parseCert(h, changed).RawTBSCertificate)
}
