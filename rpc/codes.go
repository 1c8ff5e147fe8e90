package rpc

import "sync"

// kind is what a code says of the call.
type kind string

// The kinds, as docs/RPC.md names them.
const (
	isAnswer      kind = "answer"      // ok is true
	isRefusal     kind = "refusal"     // nothing was done, and it is on the log; the call has to be another one
	isNow         kind = "not now"     // a refusal that can pass: the same call can be made again later
	isUnknown     kind = "unknown"     // not known whether anything was done
	isUnavailable kind = "unavailable" // nothing was done, because something is in trouble: not recorded as refused
)

// codeKind is one code that detail.code can be.
type codeKind struct {
	code    string
	kind    kind
	meaning string
}

// kinds are codeKinds as they are looked up.
var kinds = sync.OnceValue(func() map[string]kind {
	all := make(map[string]kind)
	for _, c := range codeKinds() {
		all[c.code] = c.kind
	}
	return all
})

// kindOf gives the kind of a code that an error has. What nobody has thought of is a refusal.
func kindOf(code string) kind {
	if k, ok := kinds()[code]; ok {
		return k
	}
	return isRefusal
}

// codeKinds gives every code that a caller can get, in the order of docs/RPC.md.
func codeKinds() []codeKind {
	var all []codeKind
	for _, some := range [][]codeKind{answerCodes(), callCodes(), nameCodes(), keyCodes(), bookCodes(), roomCodes(), troubleCodes()} {
		all = append(all, some...)
	}
	return all
}

func answerCodes() []codeKind {
	return []codeKind{
		{"issued", isAnswer, "the certificate is there; `ca.renew` says so too"},
		{"issued.secrets_gone", isAnswer, "the same to a retry after 24 hours, or the `delivery_hours` of the CA, or when the key room has lost what opens it: without the key, for good"},
		{"revoked", isAnswer, "the revocation is durable"},
		{"held", isAnswer, "the hold is durable"},
		{"released", isAnswer, "the end of the hold is durable"},
		{"retired", isAnswer, "all that the subject has is revoked"},
		{"plan.issue", isAnswer, "what `ca.issue` or `ca.renew` would do"},
		{"plan.revoke", isAnswer, "what `ca.revoke` would do"},
		{"plan.hold", isAnswer, "what `ca.hold` would do"},
		{"plan.release", isAnswer, "what `ca.release` would do"},
		{"plan.retire", isAnswer, "what `ca.retire` would do"},
		{"status", isAnswer, "what `ca.status` tells"},
		{"expiring", isAnswer, "what `ca.expiring` tells"},
		{"find", isAnswer, "what `ca.find` tells"},
		{"whoami", isAnswer, "what `ca.whoami` tells"},
		{"chain", isAnswer, "what `ca.chain` tells"},
	}
}

func callCodes() []codeKind {
	return []codeKind{
		{"policy.denied", isRefusal, "no grant allows all of it; `msg` names the one that comes closest"},
		{"multicall.time", isNow, "the calls before it in a multicall took too long for this one to begin; make it by itself"},
		{"multicall.answer", isNow, "the answers to the calls before it in a multicall leave no space for the answer to this one; make it by itself"},
		{"policy.rate", isNow, "the grant that allows it allows no more calls within this hour"},
		{"selection", isRefusal, "not exactly one of `serial`, `cn`, `request_id`; or, to renew, a name of several purposes"},
		{"purpose.unknown", isRefusal, "`purpose` is none, or one that this CA has no issuer for"},
		{"reason.unknown", isRefusal, "`reason` is not one of RFC 5280 section 5.3.1"},
		{"serial.malformed", isRefusal, "`serial` is not a serial number in hex"},
		{"request_id.malformed", isRefusal, "`request_id` is too long or has other characters"},
		{"request_id.missing", isRefusal, "a signed request that changes something has no `request_id`"},
		{"request.spelling", isRefusal, "a signed request does not spell the names as the certificate has them"},
		{"request_id.other_request", isRefusal, "`request_id` was used for something else"},
		{"plan.unknown", isRefusal, "`planned` is not the `log_index` of a plan of the caller for this very call"},
		{"plan.changed", isRefusal, "the call would do something else than the plan that it names"},
		{"request.repeated", isRefusal, "the same request without an id within ten minutes; `prior_request_id` names the first"},
		{"revoke.max", isRefusal, "`max` is out of range"},
		{"expiring.window", isRefusal, "`within_days` is out of range"},
		{"find.state", isRefusal, "`state` is not one"},
		{"find.day", isRefusal, "`ends_from` or `ends_to` is not a day"},
		{"page.limit", isRefusal, "`limit` is out of range"},
		{"page.after", isRefusal, "`after` is not the `next` of an answer"},
		{"validity.days", isRefusal, "`valid_days` is out of range for the purpose or this installation"},
		{"validity.issuer", isRefusal, "the certificate would outlive the issuing CA"},
		{"purpose.issuer", isRefusal, "the key room is set up with an issuer that is not for the purpose"},
		{"crl.url", isRefusal, "the key room is set up with a `crl_url` that is not a plain http URL"},
	}
}

func nameCodes() []codeKind {
	return []codeKind{
		{"name.empty", isRefusal, "a name is empty"},
		{"name.too_long", isRefusal, "a name, or a part of one, is too long"},
		{"name.control", isRefusal, "a control character, such as a line end"},
		{"name.invisible", isRefusal, "a character that cannot be seen, or is not assigned"},
		{"name.space", isRefusal, "a space where none may be"},
		{"name.mixed_scripts", isRefusal, "letters of two scripts"},
		{"name.characters", isRefusal, "a character that the purpose's names do not have"},
		{"name.wildcard", isRefusal, "a wildcard"},
		{"name.underscore", isRefusal, "an underscore in a host's or caller's name"},
		{"name.ip_as_dns", isRefusal, "an IP address where a host name belongs"},
		{"name.label", isRefusal, "a label of a host name has a wrong length or form"},
		{"name.alabel", isRefusal, "an internationalised host name in another form than A-labels"},
		{"name.single_label", isRefusal, "a host name without its domain"},
		{"name.reserved", isRefusal, "a name of the CA, or a host name of the service itself, to issue or to revoke"},
		{"name.san_type", isRefusal, "a kind of name that the purpose does not have"},
		{"name.san_count", isRefusal, "too many names"},
		{"name.san", isRefusal, "not a mail address, or not an IP address of one host in its canonical form"},
		{"san.constraint", isRefusal, "a name outside the issuing CA's name constraints"},
	}
}

func keyCodes() []codeKind {
	return []codeKind{
		{"csr.malformed", isRefusal, "the CSR cannot be read"},
		{"csr.attributes", isRefusal, "the CSR has other attributes than one extensionRequest"},
		{"csr.signature", isRefusal, "the CSR's signature does not verify, or is not made with SHA-2"},
		{"csr.other_name", isRefusal, "the CSR is for another common name"},
		{"key.type", isRefusal, "a kind of key that there is not; or `key_type` beside a CSR"},
		{"key.rsa_size", isRefusal, "an RSA key of another size"},
		{"key.rsa_exponent", isRefusal, "an RSA key with another exponent than 65537"},
		{"key.weak", isRefusal, "a key that is known to fall easily"},
		{"lint.failed", isRefusal, "zlint finds an error in the certificate that would be signed"},
	}
}

func bookCodes() []codeKind {
	return []codeKind{
		{"certificate.unknown", isRefusal, "no certificate matches; one that no grant covers is unknown"},
		{"certificate.revoked", isRefusal, "it is revoked or on hold, and not renewed; or it was before it was signed, and a retry gets no other"},
		{"certificate.expired", isRefusal, "it has expired, so that there is nothing to revoke, release or renew"},
		{"certificate.not_held", isRefusal, "it is revoked for good, so that there is nothing to release"},
		{"already.revoked", isRefusal, "it is revoked already"},
		{"revoke.too_many", isRefusal, "more certificates than `max`, or than one call looks at"},
		{"directory.no_entry", isNow, "the directory has no entry of the name"},
		{"directory.many_entries", isNow, "the directory has several entries of the name"},
	}
}

func roomCodes() []codeKind {
	return []codeKind{
		{"keyroom.policy.purpose", isRefusal, "by the key room's rules its issuer does not sign for the purpose"},
		{"keyroom.policy.name", isRefusal, "by the key room's rules a name is outside the issuer's domains"},
		{"keyroom.policy.validity", isRefusal, "by the key room's rules it would be valid for too long"},
		{"keyroom.intent.issuer", isRefusal, "the key room does not have the issuer any more"},
		{"keyroom.tbs.mismatch", isRefusal, "the key room would make another certificate: daemon and key room are set up differently"},
		{"keyroom.leaf.not_canonical", isRefusal, "the key room does not understand the log: it is older than the daemon"},
		{"keyroom.request.unsigned", isRefusal, "keyroom.json wants requests of the caller signed, and chancery.yaml does not; to a retry `msg` says what was issued"},
		{"keyroom.request.signature", isRefusal, "keyroom.json has other keys of the caller than chancery.yaml; to a retry `msg` says what was issued"},
		{"keyroom.request.time", isNow, "the request was signed too long ago by the key room's clock; sign it again; to a retry `msg` says what was issued"},
		{"keyroom.serial.voided", isNow, "it was given up before it was signed"},
		{"keyroom.rate.hour", isNow, "the key room's limit for an hour is reached"},
		{"keyroom.rate.day", isNow, "the key room's limit for a day is reached"},
		{"keyroom.intent.late", isNow, "the key room was asked too late"},
		{"keyroom.intent.not_before", isNow, "the clocks of daemon and key room differ"},
		{"keyroom.room.failed", isNow, "the key room could not sign; its log says why"},
	}
}

func troubleCodes() []codeKind {
	return []codeKind{
		{codeUnknownOutcome, isUnknown, "nothing is known; asking again finds out and does nothing twice"},
		{"keyroom.unreachable", isUnavailable, "the key room is not there; nothing was signed"},
		{"store.behind", isUnavailable, "the store is an old copy: nothing is signed until the operator has put things right"},
		{"store.fork", isUnavailable, "the store is of another log than the key room: the same"},
		{"keyroom.behind", isUnavailable, "the key room is an old copy: the same"},
	}
}
