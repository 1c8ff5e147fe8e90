package rpc

import (
	"context"
	"fmt"
	"slices"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/ca/name"
	"github.com/chancery-ca/chancery/store"
)

const (
	revokeMethod  = ca.RevokeMethod
	holdMethod    = "ca.hold"
	releaseMethod = ca.ReleaseMethod
	retireMethod  = "ca.retire"
)

const revokeHelp = `Revoke certificates: one by its serial, or all of a name, those still being issued included. Give serial or cn, one
of them. With ok the revocation is durable; crl says whether the list in git holds it already. A revocation can be
restated with keyCompromise; one with certificateHold with any reason.`

// whichParams choose certificates.
type whichParams struct {
	Serial  string `json:"serial,omitempty" help:"of one certificate, in hex" flag:"serial" arg:"HEX"`
	CN      string `json:"cn,omitempty" help:"common name: all certificates of it" arg:"NAME"`
	Purpose string `json:"purpose,omitempty" help:"with cn: only those for it, all that you have a grant for if it is not there" values:"purposes" flag:"purpose" arg:"PURPOSE"`
}

func (p whichParams) selector() selector {
	return selector{serial: p.Serial, cn: p.CN, purpose: p.Purpose}
}

type revokeParams struct {
	whichParams
	Reason string `json:"reason,omitempty" help:"RFC 5280 section 5.3.1, unspecified if none is named" values:"reasons" flag:"reason" arg:"REASON"`
	Max    int    `json:"max,omitempty" help:"how many certificates this may hit, 1 to 1000; 0 is 10" flag:"max" arg:"N"`
	changeParams
}

func (p revokeParams) about() about { return about{p.RequestID, p.Purpose, p.CN, p.Plan, p.Planned} }

// changeDetail is what the details of revoke, hold, release and retire have in common.
type changeDetail struct {
	head
	CRL     []listDetail `json:"crl" help:"the lists that it concerns"`
	Changes []planChange `json:"changes,omitempty" help:"of a plan only: what would become of each"`
}

type hitCertificate struct {
	Serial  cert.Serial  `json:"serial"`
	CN      string       `json:"cn"`
	Purpose cert.Purpose `json:"purpose"`
	Now     *becameNow   `json:"now,omitempty" help:"of a retry only: what has become of it since, if it is not as the first call left it"`
}

type becameNow struct {
	State  string `json:"state" values:"open live expired revoked abandoned"`
	Reason string `json:"reason,omitempty" help:"of one that is revoked, or will be as soon as it is issued" values:"reasons"`
}

type listDetail struct {
	Issuer cert.Issuer `json:"issuer"`
	Number string      `json:"number" help:"decimal; while pending the number that it will have at the least"`
	State  string      `json:"state" help:"published if the list in git says so" values:"pending published"`
	Commit string      `json:"commit" help:"in git"`
}

type planChange struct {
	Serial    cert.Serial `json:"serial"`
	Rule      string      `json:"rule" help:"the grant that allows it"`
	State     string      `json:"state" help:"that it has now"`
	Reason    string      `json:"reason" help:"that it would have; empty for a release"`
	List      string      `json:"list" help:"what would happen to its entry in the list of its issuer" values:"enter change remove"`
	Directory string      `json:"directory" help:"what would happen to it in its entry of the directory" values:"add remove none"`
	Entry     string      `json:"entry" help:"the entry"`
	Attribute string      `json:"attribute" help:"of the entry"`
}

type revokeDetail struct {
	changeDetail
	Revoked []hitCertificate `json:"revoked"`
}

const maxRevoke = 1000 // certificates in one call: the answer names each

func (s *Server) revoke(ctx context.Context, rq *request, p revokeParams) (msg string, d revokeDetail, err error) {
	reason, err := readReason(p.Reason, cert.Unspecified)
	if err != nil {
		return "", d, err
	}
	v := verb{revokeMethod, "revoke", "revoked", s.authority.Revoke}
	msg, d.Revoked, d.changeDetail, err = s.change(ctx, rq, v, p.selector(), ca.RevokeRequest{Reason: reason, Max: p.Max})
	return msg, d, err
}

func readReason(text string, otherwise cert.Reason) (cert.Reason, error) {
	if text == "" {
		return otherwise, nil
	}
	reason, err := cert.ParseReason(text)
	if err != nil {
		return 0, refuse("reason.unknown", "%v", err)
	}
	return reason, nil
}

const holdHelp = `Revoke certificates for as long as a doubt lasts, with the reason certificateHold. ca.release ends that, ca.revoke
makes it final. Give serial or cn, one of them.`

const releaseHelp = `Take certificates off hold: they are live again, the next list leaves them out, and the directory shows them again.
No other revocation ends. Give serial or cn, one of them.`

type holdParams struct {
	whichParams
	Max int `json:"max,omitempty" help:"how many certificates this may hit, 1 to 1000; 0 is 10" flag:"max" arg:"N"`
	changeParams
}

func (p holdParams) about() about { return about{p.RequestID, p.Purpose, p.CN, p.Plan, p.Planned} }

type holdDetail struct {
	changeDetail
	Held []hitCertificate `json:"held"`
}

type releaseDetail struct {
	changeDetail
	Released []hitCertificate `json:"released"`
}

func (s *Server) hold(ctx context.Context, rq *request, p holdParams) (msg string, d holdDetail, err error) {
	v := verb{holdMethod, "hold", "held", s.authority.Revoke}
	msg, d.Held, d.changeDetail, err = s.change(ctx, rq, v, p.selector(), ca.RevokeRequest{Reason: cert.CertificateHold, Max: p.Max})
	return msg, d, err
}

func (s *Server) release(ctx context.Context, rq *request, p holdParams) (msg string, d releaseDetail, err error) {
	v := verb{releaseMethod, "release", "released", s.authority.Release}
	msg, d.Released, d.changeDetail, err = s.change(ctx, rq, v, p.selector(), ca.RevokeRequest{Max: p.Max})
	return msg, d, err
}

const retireHelp = `Revoke everything that a subject has: all certificates of a name, of every purpose that you have a grant for, those
still being issued included, up to 1000. For a person who leaves, or a machine that is taken down.`

type retireParams struct {
	CN     string `json:"cn" help:"common name" arg:"NAME"`
	Reason string `json:"reason,omitempty" help:"RFC 5280 section 5.3.1, cessationOfOperation if none is named" values:"reasons" flag:"reason" arg:"REASON"`
	changeParams
}

func (p retireParams) about() about {
	return about{requestID: p.RequestID, cn: p.CN, plan: p.Plan, planned: p.Planned}
}

type retireDetail struct {
	changeDetail
	Retired []hitCertificate `json:"retired"`
}

func (s *Server) retire(ctx context.Context, rq *request, p retireParams) (msg string, d retireDetail, err error) {
	reason, err := readReason(p.Reason, cert.CessationOfOperation)
	if err != nil {
		return "", d, err
	}
	v := verb{retireMethod, "retire", "retired", s.authority.Revoke}
	msg, d.Retired, d.changeDetail, err = s.change(ctx, rq, v, selector{cn: p.CN}, ca.RevokeRequest{Reason: reason, Max: maxRevoke})
	return msg, d, err
}

// verb is what one of the methods that revoke or release does, in words.
type verb struct {
	method string
	would  string // do, in a plan
	done   string // the code, and the name of the list of certificates
	do     func(context.Context, ca.Call, ca.RevokeRequest) (*ca.Revoked, error)
}

// change chooses what a call may hit, does it, and answers.
func (s *Server) change(ctx context.Context, rq *request, v verb, sel selector, r ca.RevokeRequest) (msg string, hit []hitCertificate, d changeDetail, err error) {
	chosen, err := choose(rq.caller, v.method, sel)
	if err != nil {
		return "", nil, d, err
	}
	if r.Max < 0 || r.Max > maxRevoke {
		return "", nil, d, refuse("revoke.max", "max is %d; want 1 to %d", r.Max, maxRevoke)
	}
	r.Serial, r.Names = chosen.serial, chosen.names
	r.Method = v.method
	r.May = func(c store.Certificate, hits int) (string, error) {
		w := concerning(v.method, c)
		if w.hits = hits; withReason(v.method) {
			w.reason = r.Reason.String()
		}
		g, err := rq.caller.allow(w)
		if err != nil {
			return "", err
		}
		return g.rule, nil
	}
	done, err := v.do(ctx, rq.asCall(""), r)
	if err != nil {
		return "", nil, d, err
	}
	for _, c := range done.Revoked {
		hit = append(hit, hitOf(c))
	}
	for _, l := range done.Lists {
		d.CRL = append(d.CRL, listDetail(l))
	}
	d.head = head{Code: v.done, RequestID: done.RequestID, LogIndex: done.LogIndex}
	if rq.plan = done.Plan; rq.plan != nil {
		d.Code, d.Changes = "plan."+v.would, plannedChanges(done.Plan)
	}
	return v.message(done), hit, d, nil
}

func hitOf(c ca.RevokedCertificate) hitCertificate {
	hit := hitCertificate{Serial: c.Serial, CN: c.CN, Purpose: c.Purpose}
	if b := c.Became; b != nil {
		hit.Now = &becameNow{State: b.State}
		if b.State == "revoked" || b.State == "open" {
			hit.Now.Reason = b.Reason.String()
		}
	}
	return hit
}

func (v verb) message(r *ca.Revoked) string {
	if r.Plan != nil {
		return "would " + v.would + " " + allOf(r.Revoked) + "; ask without plan to do it"
	}
	done := v.whatIsDone(r.Revoked)
	if slices.ContainsFunc(r.Revoked, onNoList) {
		return done
	}
	return done + "; " + whereItIsSaid(r.Lists)
}

func plannedChanges(p *ca.Plan) (changes []planChange) {
	for _, c := range p.Changes {
		one := planChange{Serial: c.Serial, Rule: c.Rule, State: c.State, Reason: c.Reason, List: c.List, Directory: c.Directory, Entry: c.Entry}
		if c.Directory != "none" {
			one.Attribute = cert.DirectoryAttribute
		}
		changes = append(changes, one)
	}
	return changes
}

func described(serial cert.Serial, p cert.Purpose, cn string) string {
	return fmt.Sprintf("certificate %s of %s %q", serial, p, cn)
}

func allOf(hit []ca.RevokedCertificate) string {
	if len(hit) == 1 {
		return described(hit[0].Serial, hit[0].Purpose, hit[0].CN)
	}
	return fmt.Sprintf("%d certificates", len(hit))
}

func (v verb) whatIsDone(hit []ca.RevokedCertificate) string {
	pending, changed := 0, 0
	for _, c := range hit {
		if c.Became != nil {
			changed++
		} else if c.Pending {
			pending++
		}
	}
	switch {
	case changed > 0 && len(hit) == 1:
		return v.whatBecame(hit[0])
	case changed > 0:
		return fmt.Sprintf("%s were %s by this request, and %d of them changed since, as now of each tells", allOf(hit), v.done, changed)
	case pending == 0:
		return allOf(hit) + " " + v.done
	case len(hit) == 1:
		return allOf(hit) + " will be " + v.done + " as soon as it is issued"
	}
	return fmt.Sprintf("%s %s, %d of them as soon as issued", allOf(hit), v.done, pending)
}

// whatBecame says of one certificate what the first call did and what is so now.
func (v verb) whatBecame(c ca.RevokedCertificate) string {
	reason := c.Became.Reason
	was, now := "was", "is live now"
	switch state := c.Became.State; {
	case state == "expired":
		now = "has expired since"
	case state == "abandoned":
		was, now = "was to be", "never was issued"
	case state == "open":
		was, now = "was to be", fmt.Sprintf("will be revoked (%s) as soon as it is issued", reason)
	case state == "revoked" && reason == cert.CertificateHold:
		now = "is on hold now"
	case state == "revoked":
		now = fmt.Sprintf("is revoked (%s) now", reason)
	}
	return fmt.Sprintf("%s %s %s by this request, and %s", described(c.Serial, c.Purpose, c.CN), was, v.done, now)
}

// onNoList tells whether no list says what is so of a certificate.
func onNoList(c ca.RevokedCertificate) bool {
	return c.Became != nil && (c.Became.State == "expired" || c.Became.State == "abandoned")
}

func whereItIsSaid(lists []ca.ListState) string {
	waiting := slices.ContainsFunc(lists, func(l ca.ListState) bool { return l.State != "published" })
	switch one := len(lists) == 1; {
	case one && waiting:
		return "the list that says so is not in git yet, ca.status tells when it is"
	case one:
		return "the list that says so is published"
	case waiting:
		return "the lists that say so are not all in git yet, ca.status tells when they are"
	}
	return "the lists that say so are published"
}

// selector is how a call says which certificates it is about, as the caller wrote it.
type selector struct {
	serial, cn, purpose, requestID string
}

type selection struct {
	serial cert.Serial
	names  map[cert.Purpose]name.Name
}

// choose reads a selector and checks that the caller may ask for such a thing at all. A name without a
// purpose means every purpose that it can be a name of and that the caller has a grant for.
func choose(c *caller, method string, sel selector) (selection, error) {
	given := 0
	for _, s := range []string{sel.serial, sel.cn, sel.requestID} {
		if s != "" {
			given++
		}
	}
	if given != 1 || sel.purpose != "" && sel.cn == "" {
		return selection{}, refuse("selection", "say which certificates: by one of serial, cn, or, for ca.status, request_id; purpose goes with cn")
	}
	if sel.cn != "" {
		names, err := chooseNames(c, method, sel)
		return selection{names: names}, err
	}
	if _, err := c.allow(wish{method: method}); err != nil || sel.serial == "" {
		return selection{}, err
	}
	serial, err := cert.ParseSerial(sel.serial)
	if err != nil {
		return selection{}, refuse("serial.malformed", "%v", err)
	}
	return selection{serial: serial}, nil
}

func chooseNames(c *caller, method string, sel selector) (map[cert.Purpose]name.Name, error) {
	purposes := cert.Purposes()
	if sel.purpose != "" {
		p, err := readPurpose(sel.purpose)
		if err != nil {
			return nil, err
		}
		purposes = []cert.Purpose{p}
	}
	names := make(map[cert.Purpose]name.Name)
	var noName, noGrant error
	for _, p := range purposes {
		n, err := name.Canonical(p, sel.cn)
		if err != nil {
			noName = firstError(noName, err)
			continue
		}
		if _, err := c.allow(namedWish(method, p, n)); err != nil {
			noGrant = firstError(noGrant, err)
			continue
		}
		names[p] = n
	}
	if len(names) == 0 {
		return nil, firstError(noGrant, noName)
	}
	return names, nil
}

func firstError(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

// concerning is the wish to do something with a certificate that exists.
func concerning(method string, c store.Certificate) wish {
	w := namedWish(method, c.Purpose, name.Name{Text: c.CN, Key: c.Key})
	w.existing, w.owner = true, c.Caller
	return w
}

// namedWish is about a common name only. A certificate may have more names than its caller has now, and
// must be revocable all the same.
func namedWish(method string, p cert.Purpose, n name.Name) wish {
	return wish{method: method, purpose: p, name: n}
}
