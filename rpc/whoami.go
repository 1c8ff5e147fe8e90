package rpc

import (
	"context"
	"fmt"
	"time"

	"github.com/chancery-ca/chancery/ca/cert"
)

const whoamiMethod = "ca.whoami"

const whoamiHelp = `Tell who you are to this service and what you may do. It needs no grant, and nothing is entered on the log. A call needs
one grant that allows all of it.`

type whoamiParams struct{}

func (whoamiParams) about() about { return about{} }

type whoamiDetail struct {
	head
	Caller     string           `json:"caller"`
	Credential credentialDetail `json:"credential" help:"by what you came in"`
	NotAfter   time.Time        `json:"not_after" help:"of the certificate that this connection came with, or of its CA if that ends first"`
	Key        string           `json:"key" help:"SHA-256 of its public key"`
	PerSecond  int              `json:"per_second" help:"calls that you may make, on average"`
	Grants     []grantDetail    `json:"grants"`
}

type credentialDetail struct {
	Kind    string `json:"kind" help:"cn is a certificate of the callers CA, spki a pinned key" values:"cn spki issuer_subject"`
	SPKI    string `json:"spki,omitempty" help:"SHA-256 of the pinned key"`
	Issuer  string `json:"issuer,omitempty"`
	Subject string `json:"subject,omitempty"`
}

type grantDetail struct {
	Rule     string         `json:"rule" help:"its name in refusals and on the log"`
	Methods  []string       `json:"methods"`
	Purposes []cert.Purpose `json:"purposes"`
	Names    []string       `json:"names"`
	Domains  []string       `json:"domains"`
	Networks []string       `json:"networks"`
	KeyTypes []cert.KeyType `json:"key_types" help:"like each that follows, as in CONFIG.md; 0 and an empty array are no bound"`
	MaxDays  int            `json:"max_days"`
	Reasons  []string       `json:"reasons"`
	Max      int            `json:"max"`
	PerHour  int            `json:"per_hour"`
	Own      bool           `json:"own"`
}

func (s *Server) whoami(_ context.Context, rq *request, _ whoamiParams) (msg string, d whoamiDetail, err error) {
	d = whoamiDetail{
		head: head{Code: "whoami"}, Caller: rq.caller.name, Credential: rq.by.detail(), NotAfter: rq.ends, Key: rq.who.Key,
		PerSecond: int(rq.caller.limit.Limit()),
	}
	for _, g := range rq.caller.grants {
		one := grantDetail{
			Rule: g.rule, Methods: g.methods, Purposes: g.purposes, Names: g.names, Domains: g.domains, KeyTypes: g.conf.KeyTypes,
			MaxDays: g.conf.MaxDays, Reasons: g.conf.Reasons, Max: g.conf.Max, PerHour: g.conf.PerHour, Own: g.conf.Own,
		}
		for _, n := range g.networks {
			one.Networks = append(one.Networks, n.String())
		}
		d.Grants = append(d.Grants, one)
	}
	msg = fmt.Sprintf("you are %s, until %s; grants: %d", rq.caller.name, rq.ends.UTC().Format("2006-01-02"), len(d.Grants))
	return msg, d, nil
}
