package audit_test

import (
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca/cert"
)

// contradiction is a log that contradicts itself in its last leaf.
type contradiction struct {
	code  string
	build func(l *ledger) int64 // gives the index of the leaf that contradicts
}

func contradictions() []contradiction {
	return []contradiction{
		{audit.LeafNotCanonical, func(l *ledger) int64 { return l.raw([]byte(`{"v":1}`)) }},
		{audit.LogFirst, func(l *ledger) int64 { return l.add(daemon, l.opened()) }},
		{audit.CeremonyLate, func(l *ledger) int64 {
			l.add(daemon, &audit.ServiceStopped{})
			return l.add(daemon, &audit.IssuerNamed{Issuer: "other", Room: "room-1", Certificate: l.root.Raw})
		}},
		{audit.CeremonyLate, func(l *ledger) int64 {
			l.add(daemon, &audit.ServiceStopped{})
			return l.add(daemon, &audit.RootNamed{Certificate: l.root.Raw})
		}},
		{audit.CeremonyCertificate, func(l *ledger) int64 {
			return l.add(daemon, &audit.RootNamed{Certificate: l.root.Raw})
		}},
		{audit.CeremonyCertificate, func(l *ledger) int64 {
			stranger, _ := ledgerCA(l.t, "Example Root", nil, nil)
			return l.add(daemon, &audit.IssuerNamed{Issuer: "other", Room: "room-1", Certificate: stranger.Raw})
		}},
		{audit.CeremonyCertificate, func(l *ledger) int64 {
			return l.add(daemon, &audit.IssuerNamed{Issuer: "other", Room: "room-1"})
		}},
		{audit.CeremonyCertificate, func(l *ledger) int64 {
			l.cut(1)
			return l.add(daemon, &audit.RootNamed{Certificate: l.issuer.Raw})
		}},
		{audit.CeremonyCertificate, func(l *ledger) int64 {
			l.cut(1)
			return l.add(daemon, &audit.RootNamed{Certificate: []byte("no DER")})
		}},
		{audit.CeremonyCertificate, func(l *ledger) int64 {
			l.cut(1)
			return l.add(daemon, &audit.IssuerNamed{Issuer: "users", Room: "room-1", Certificate: l.issuer.Raw})
		}},
		{audit.CeremonyCertificate, func(l *ledger) int64 {
			return l.add(daemon, &audit.IssuerNamed{Issuer: "other", Certificate: l.issuer.Raw})
		}},
		{audit.CeremonyCertificate, func(l *ledger) int64 {
			return l.add(daemon, &audit.IssuerNamed{Room: "room-1", Certificate: l.issuer.Raw})
		}},
		{audit.RoomUnknown, func(l *ledger) int64 { return l.add(daemon, &audit.ServiceStarted{}) }},
		{audit.RoomUnknown, func(l *ledger) int64 {
			return l.add(daemon, &audit.ServiceStarted{Room: audit.RoomState{Room: "room-2", Sequence: 1}})
		}},
		{audit.RoomSequence, func(l *ledger) int64 {
			l.add(daemon, &audit.ServiceStarted{Room: l.room()})
			l.issued(1)
			return l.add(daemon, &audit.ServiceStarted{Room: audit.RoomState{Room: "room-1", Sequence: l.state.Sequence - 1}})
		}},
		{audit.RoomSequence, func(l *ledger) int64 {
			s := l.room()
			l.add(daemon, &audit.ServiceStarted{Room: s})
			s.Journal = "bb"
			return l.add(daemon, &audit.ServiceStarted{Room: s})
		}},
		{audit.ConfigChain, func(l *ledger) int64 { return l.add(daemon, &audit.ConfigReloaded{To: "b0"}) }},
		{audit.ConfigChain, func(l *ledger) int64 {
			l.add(daemon, &audit.ServiceStarted{Room: l.room(), ConfigSHA256: "a0"})
			l.add(daemon, &audit.ConfigReloaded{From: "a0", To: "b0"})
			return l.add(daemon, &audit.ConfigReloaded{From: "a0", To: "c0"})
		}},
		{audit.ConfigChain, func(l *ledger) int64 {
			l.add(daemon, &audit.ServiceStarted{Room: l.room(), ConfigSHA256: "a0"})
			l.add(daemon, &audit.ConfigReloaded{From: "a0", To: "b0"})
			l.add(daemon, &audit.ServiceStarted{Room: l.room(), ConfigSHA256: "c0"})
			return l.add(daemon, &audit.ConfigReloaded{From: "b0", To: "d0"})
		}},
		{audit.LogRecoveredSize, func(l *ledger) int64 {
			return l.add(daemon, &audit.LogRecovered{From: 2, Size: 99, Room: l.room()})
		}},
		{audit.RequestReused, func(l *ledger) int64 {
			l.intent(1)
			other := ledgerIntent(2)
			other.RequestID = "request-1"
			return l.add(alice, other)
		}},
		{audit.RequestReused, func(l *ledger) int64 { // what was revoked before it was signed frees no request id
			intent := l.intent(1)
			l.add(alice, &audit.RevokeDone{RequestID: "r", Pending: []cert.Serial{ledgerSerial(1)}})
			l.add(daemon, &audit.IssueAbandoned{Serial: ledgerSerial(1), Intent: intent, Room: l.room()})
			other := ledgerIntent(2)
			other.RequestID = "request-1"
			return l.add(alice, other)
		}},
		{audit.ReleaseNotHeld, func(l *ledger) int64 {
			l.issued(1)
			return l.release("r", 1, "users")
		}},
		{audit.ReleaseNotHeld, func(l *ledger) int64 {
			l.issued(1)
			l.revoke("r", ledgerRevocation(1, cert.Superseded))
			return l.release("s", 1, "users")
		}},
		{audit.ReleaseNotHeld, func(l *ledger) int64 {
			l.issued(1)
			l.revoke("r", ledgerRevocation(1, cert.CertificateHold))
			l.revoke("s", ledgerRevocation(1, cert.Superseded))
			return l.release("t", 1, "users")
		}},
		{audit.ReleaseNotHeld, func(l *ledger) int64 {
			l.issued(1)
			l.revoke("r", ledgerRevocation(1, cert.CertificateHold))
			l.release("s", 1, "users")
			return l.release("t", 1, "users")
		}},
		{audit.ReleaseNotHeld, func(l *ledger) int64 {
			l.issued(1)
			l.revoke("r", ledgerRevocation(1, cert.CertificateHold))
			return l.release("s", 1, "others")
		}},
		{audit.ReleaseNotHeld, func(l *ledger) int64 {
			l.intent(1)
			return l.release("s", 1, "users")
		}},
		{audit.RequestReused, func(l *ledger) int64 {
			l.issued(1)
			l.revoke("r", ledgerRevocation(1, cert.CertificateHold))
			return l.release("r", 1, "users")
		}},
		{audit.RequestReused, func(l *ledger) int64 {
			l.issued(1)
			return l.revoke("request-1", ledgerRevocation(1, cert.Superseded))
		}},
		{audit.RequestOther, func(l *ledger) int64 {
			return l.retried(`{"method":"ca.status","params":{"request_id":"request-1"}}`)
		}},
		{audit.RequestOther, func(l *ledger) int64 {
			return l.retried(`{"method":"ca.issue","params":{"request_id":"request-2"}}`)
		}},
		{audit.RequestOther, func(l *ledger) int64 {
			return l.retried(`{"method":"ca.renew","params":{"request_id":"request-1","plan":true}}`)
		}},
		{audit.RequestOther, func(l *ledger) int64 {
			return l.add(alice, changed(func(e *audit.IssueIntent) {
				e.Request = &audit.SignedRequest{Body: []byte(`{"method":"ca.issue","params":{"cn":"somebody"}}`)}
			}))
		}},
		{audit.RequestOther, func(l *ledger) int64 {
			l.issued(1)
			l.revoke("r", ledgerRevocation(1, cert.CertificateHold))
			return l.add(alice, &audit.ReleaseDone{
				RequestID: "s", Released: []audit.Release{{Serial: ledgerRevocation(1, cert.CertificateHold).Serial, Issuer: "users"}},
				Request: &audit.SignedRequest{Body: []byte(`{"method":"ca.release","params":{"cn":"somebody","request_id":"s"}}`)},
			})
		}},
		{audit.IssueIssuer, func(l *ledger) int64 {
			return l.add(alice, changed(func(e *audit.IssueIntent) { e.Issuer = "others" }))
		}},
		{audit.IssueIssuer, func(l *ledger) int64 {
			return l.add(alice, changed(func(e *audit.IssueIntent) { e.Issuer = cert.Root }))
		}},
		{audit.IssueIssuer, func(l *ledger) int64 { return l.add(alice, changed(func(e *audit.IssueIntent) { e.Room = "room-2" })) }},
		{audit.IssueIssuer, func(l *ledger) int64 {
			return l.add(alice, changed(func(e *audit.IssueIntent) { e.Purpose = cert.Server }))
		}},
		{audit.IssueSerial, func(l *ledger) int64 { return l.add(alice, changed(func(e *audit.IssueIntent) { e.Serial = "7F01" })) }},
		{audit.IssueSerialReused, func(l *ledger) int64 {
			l.add(daemon, &audit.IssueAbandoned{Serial: ledgerSerial(1), Intent: l.intent(1), Room: l.room()})
			return l.intent(1)
		}},
		{audit.DoneWithoutIntent, func(l *ledger) int64 { return l.done(1, 3) }},
		{audit.DoneTwice, func(l *ledger) int64 { return l.done(1, l.issued(1)) }},
		{audit.DoneAfterAbandoned, func(l *ledger) int64 {
			intent := l.intent(1)
			l.add(daemon, &audit.IssueAbandoned{Serial: ledgerSerial(1), Intent: intent, Room: l.room()})
			return l.done(1, intent)
		}},
		{audit.IntentOfAnother, func(l *ledger) int64 {
			l.intent(1)
			return l.done(1, l.intent(2))
		}},
		{audit.IntentOfAnother, func(l *ledger) int64 {
			l.intent(1)
			return l.add(daemon, &audit.IssueAbandoned{Serial: ledgerSerial(1), Intent: l.intent(2), Room: l.room()})
		}},
		{audit.IntentOfAnother, func(l *ledger) int64 {
			l.issued(1)
			return l.add(alice, &audit.IssueRedelivered{Serial: ledgerSerial(1), Intent: l.issued(2), RequestID: "request-1", SealedSHA256: "5ea1", Room: "room-1"})
		}},
		{audit.AbandonedWithoutIntent, func(l *ledger) int64 {
			return l.add(daemon, &audit.IssueAbandoned{Serial: ledgerSerial(1), Intent: 3, Room: l.room()})
		}},
		{audit.AbandonedAfterEnd, func(l *ledger) int64 {
			return l.add(daemon, &audit.IssueAbandoned{Serial: ledgerSerial(1), Intent: l.issued(1), Room: l.room()})
		}},
		{audit.AnswerWithoutDone, func(l *ledger) int64 {
			l.intent(1)
			return l.add(alice, &audit.IssueAnswering{Serial: ledgerSerial(1), RequestID: "request-1"})
		}},
		{audit.AnswerWithoutDone, func(l *ledger) int64 {
			return l.add(alice, &audit.IssueRedelivered{Serial: ledgerSerial(1), Intent: l.intent(1), RequestID: "request-1", SealedSHA256: "5ea1", Room: "room-1"})
		}},
		{audit.AnswerOther, func(l *ledger) int64 {
			l.issued(1)
			return l.add(bob, &audit.IssueAnswering{Serial: ledgerSerial(1), RequestID: "request-1"})
		}},
		{audit.AnswerOther, func(l *ledger) int64 {
			l.issued(1)
			return l.add(alice, &audit.IssueAnswering{Serial: ledgerSerial(1), RequestID: "request-7"})
		}},
		{audit.RedeliveredOther, func(l *ledger) int64 { return l.redeliver(bob, "request-1", "5ea1", "room-1") }},
		{audit.RedeliveredOther, func(l *ledger) int64 { return l.redeliver(alice, "request-7", "5ea1", "room-1") }},
		{audit.RedeliveredOther, func(l *ledger) int64 { return l.redeliver(alice, "request-1", "5ea2", "room-1") }},
		{audit.RedeliveredOther, func(l *ledger) int64 { return l.redeliver(alice, "request-1", "5ea1", "room-2") }},
		{audit.DirectoryUnknown, func(l *ledger) int64 {
			l.intent(1)
			return l.add(daemon, &audit.DirectoryPublished{Purpose: cert.User, Added: []cert.Serial{ledgerSerial(1)}})
		}},
		{audit.DirectoryUnknown, func(l *ledger) int64 {
			l.issued(1)
			return l.add(daemon, &audit.DirectoryPublished{Purpose: cert.Server, Removed: []cert.Serial{ledgerSerial(1)}})
		}},
		{audit.RevokeUnknown, func(l *ledger) int64 { return l.revoke("r", ledgerRevocation(1, cert.Superseded)) }},
		{audit.RevokeUnknown, func(l *ledger) int64 {
			l.issued(1)
			r := ledgerRevocation(1, cert.Superseded)
			r.Issuer = "servers"
			return l.revoke("r", r)
		}},
		{audit.RevokeUnknown, func(l *ledger) int64 {
			l.issued(1)
			return l.add(alice, &audit.RevokeDone{RequestID: "r", Pending: []cert.Serial{ledgerSerial(1)}})
		}},
		{audit.RevokeWeakened, func(l *ledger) int64 {
			l.issued(1)
			l.revoke("r", ledgerRevocation(1, cert.KeyCompromise))
			return l.revoke("s", ledgerRevocation(1, cert.Superseded))
		}},
		{audit.RevokeWeakened, func(l *ledger) int64 {
			l.issued(1)
			l.revoke("r", ledgerRevocation(1, cert.Superseded))
			later := ledgerRevocation(1, cert.KeyCompromise)
			later.At = later.At.Add(time.Second)
			return l.revoke("s", later)
		}},
		{audit.RevokeFuture, func(l *ledger) int64 {
			l.issued(1)
			r := ledgerRevocation(1, cert.Superseded)
			r.At = r.At.AddDate(900, 0, 0)
			return l.revoke("r", r)
		}},
		{audit.RevokeLost, func(l *ledger) int64 {
			intent := l.intent(1)
			l.add(alice, &audit.RevokeDone{RequestID: "r", Pending: []cert.Serial{ledgerSerial(1)}})
			return l.done(1, intent)
		}},
		{audit.RevokeLost, func(l *ledger) int64 {
			intent := l.intent(1)
			l.add(alice, &audit.RevokeDone{RequestID: "r", Reason: cert.KeyCompromise, Pending: []cert.Serial{ledgerSerial(1)}})
			r := ledgerRevocation(1, cert.Superseded)
			return l.add(alice, &audit.IssueDone{Serial: ledgerSerial(1), Intent: intent, Room: l.room(), Revocation: &r})
		}},
		{audit.RevokeLost, func(l *ledger) int64 {
			l.issued(1)
			return l.add(alice, &audit.RevokeDone{RequestID: "r", Reason: cert.KeyCompromise, Revoked: []audit.Revocation{ledgerRevocation(1, cert.Superseded)}})
		}},
		{audit.RevokeWeakened, func(l *ledger) int64 {
			l.intent(1)
			l.add(alice, &audit.RevokeDone{RequestID: "r", Reason: cert.KeyCompromise, Pending: []cert.Serial{ledgerSerial(1)}})
			return l.add(alice, &audit.RevokeDone{RequestID: "s", Reason: cert.Superseded, Pending: []cert.Serial{ledgerSerial(1)}})
		}},
		{audit.RevokeUnasked, func(l *ledger) int64 {
			r := ledgerRevocation(1, cert.Superseded)
			return l.add(alice, &audit.IssueDone{Serial: ledgerSerial(1), Intent: l.intent(1), Room: l.room(), Revocation: &r})
		}},
		{audit.CRLIssuer, func(l *ledger) int64 {
			return l.add(daemon, &audit.CRLIntent{Room: "room-1", Issuer: "others", Number: "1"})
		}},
		{audit.CRLIssuer, func(l *ledger) int64 {
			return l.add(daemon, &audit.CRLIntent{Room: "room-2", Issuer: "users", Number: "1"})
		}},
		{audit.CRLIssuer, func(l *ledger) int64 {
			l.cut(1)
			return l.add(daemon, &audit.RootListNamed{Number: "1"})
		}},
		{audit.CRLNumber, func(l *ledger) int64 {
			l.listSigned("2", l.listIntent("2"))
			return l.listIntent("2")
		}},
		{audit.CRLNumber, func(l *ledger) int64 { return l.listIntent("01") }},
		{audit.CRLNumber, func(l *ledger) int64 {
			l.listIntent("2")
			later := l.listIntent("1")
			l.listSigned("2", later-1)
			return l.listSigned("1", later)
		}},
		{audit.CRLNumber, func(l *ledger) int64 { return l.add(daemon, &audit.RootListNamed{Number: "1"}) }},
		{audit.CRLBackwards, func(l *ledger) int64 {
			l.add(daemon, &audit.RootListNamed{Number: "2", ThisUpdate: l.now})
			return l.add(daemon, &audit.RootListNamed{Number: "3", ThisUpdate: l.now.AddDate(0, 0, -1)})
		}},
		{audit.CRLSignedWithoutIntent, func(l *ledger) int64 { return l.listSigned("1", 3) }},
		{audit.CRLSignedWithoutIntent, func(l *ledger) int64 { return l.listSigned("2", l.listIntent("1")) }},
		{audit.CRLSignedWithoutIntent, func(l *ledger) int64 {
			intent := l.listIntent("1")
			l.listSigned("1", intent)
			return l.listSigned("1", intent)
		}},
		{audit.CRLPublishedUnknown, func(l *ledger) int64 { return l.published("1", 1) }},
		{audit.CRLPublishedUnknown, func(l *ledger) int64 {
			l.listSigned("1", l.listIntent("1"))
			return l.published("2", l.listSigned("3", l.listIntent("3"))+1)
		}},
		{audit.CRLCheckpoint, func(l *ledger) int64 { return l.published("1", l.listSigned("1", l.listIntent("1"))) }},
		{audit.CRLCheckpoint, func(l *ledger) int64 { return l.published("1", l.listSigned("1", l.listIntent("1"))+2) }},
	}
}

func changed(change func(*audit.IssueIntent)) *audit.IssueIntent {
	e := ledgerIntent(1)
	change(e)
	return e
}

func (l *ledger) redeliver(who audit.Actor, request, sealed, room string) int64 {
	return l.add(who, &audit.IssueRedelivered{Serial: ledgerSerial(1), Intent: l.issued(1), RequestID: request, SealedSHA256: sealed, Room: room})
}

// retried enters a retry of the first request with what its caller signed.
func (l *ledger) retried(body string) int64 {
	return l.add(alice, &audit.IssueRedelivered{
		Serial: ledgerSerial(1), Intent: l.issued(1), RequestID: "request-1", SealedSHA256: "5ea1", Room: "room-1",
		Request: &audit.SignedRequest{Body: []byte(body)},
	})
}
