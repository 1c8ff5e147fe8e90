package rpc

import (
	"testing"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/ca/cert"
)

// TestRevokedMessages: one is one and several are several, and what comes next is said.
func TestRevokedMessages(t *testing.T) {
	bob := ca.RevokedCertificate{Serial: "1f", CN: "bob", Purpose: cert.User}
	revoking := verb{would: "revoke", done: "revoked"}
	open := ca.RevokedCertificate{Serial: "2f", CN: "bob", Purpose: cert.User, Pending: true}
	became := func(c ca.RevokedCertificate, state string, reason cert.Reason) []ca.RevokedCertificate {
		c.Became = &ca.Became{State: state, Reason: reason}
		return []ca.RevokedCertificate{c}
	}
	there, waiting := ca.ListState{Issuer: "users", State: "published"}, ca.ListState{Issuer: "callers", State: "pending"}
	for want, r := range map[string]ca.Revoked{
		`certificate 1f of user "bob" revoked; the list that says so is published`: {
			Revoked: []ca.RevokedCertificate{bob}, Lists: []ca.ListState{there},
		},
		`certificate 1f of user "bob" revoked; the list that says so is not in git yet, ca.status tells when it is`: {
			Revoked: []ca.RevokedCertificate{bob}, Lists: []ca.ListState{waiting},
		},
		`certificate 2f of user "bob" will be revoked as soon as it is issued; the list that says so is not in git yet, ca.status tells when it is`: {
			Revoked: []ca.RevokedCertificate{open}, Lists: []ca.ListState{waiting},
		},
		`2 certificates revoked; the lists that say so are published`: {
			Revoked: []ca.RevokedCertificate{bob, bob}, Lists: []ca.ListState{there, there},
		},
		`certificate 1f of user "bob" was revoked by this request, and has expired since`: {
			Revoked: became(bob, "expired", 0), Lists: []ca.ListState{there},
		},
		`certificate 1f of user "bob" was to be revoked by this request, and never was issued`: {
			Revoked: became(bob, "abandoned", 0), Lists: []ca.ListState{there},
		},
		`certificate 2f of user "bob" was to be revoked by this request, and will be revoked (keyCompromise) as soon as it is issued; the list that says so is not in git yet, ca.status tells when it is`: {
			Revoked: became(open, "open", cert.KeyCompromise), Lists: []ca.ListState{waiting},
		},
		`2 certificates were revoked by this request, and 1 of them changed since, as now of each tells; the list that says so is published`: {
			Revoked: append(became(bob, "live", 0), bob), Lists: []ca.ListState{there},
		},
		`3 certificates revoked, 1 of them as soon as issued; the lists that say so are not all in git yet, ca.status tells when they are`: {
			Revoked: []ca.RevokedCertificate{bob, bob, open}, Lists: []ca.ListState{there, waiting},
		},
	} {
		if got := revoking.message(&r); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
	for want, hit := range map[string][]ca.RevokedCertificate{
		`would revoke certificate 1f of user "bob"; ask without plan to do it`: {bob},
		`would revoke 2 certificates; ask without plan to do it`:               {bob, open},
	} {
		if got := revoking.message(&ca.Revoked{Revoked: hit, Plan: new(ca.Plan)}); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
}
