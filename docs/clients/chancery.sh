#!/bin/sh
# Issue and revoke from a shell, with curl and jq.
#
# chancery.sh URL FOLDER issue PURPOSE NAME REQUEST_ID
# chancery.sh URL FOLDER revoke SERIAL REASON REQUEST_ID
#
# URL is https://HOST:PORT/rpc; FOLDER holds root.pem, caller.pem and caller.key. Exit code 0: done, 1: refused,
# 2: the call is wrong, 3: it is not known how it ended; run the same command again.
set -eu
[ $# = 6 ] || { echo "usage: chancery.sh URL FOLDER issue PURPOSE NAME ID | revoke SERIAL REASON ID" >&2; exit 2; }
url=$1 folder=$2 what=$3 first=$4 second=$5 request_id=$6
umask 077

# jq quotes what it is given; text pasted into JSON is a hole.
case $what in
issue) body=$(jq -cn --arg a "$first" --arg b "$second" --arg id "$request_id" \
	'{jsonrpc: "2.0", id: 1, method: "ca.issue", params: {purpose: $a, cn: $b, request_id: $id}}') ;;
revoke) body=$(jq -cn --arg a "$first" --arg b "$second" --arg id "$request_id" \
	'{jsonrpc: "2.0", id: 1, method: "ca.revoke", params: {serial: $a, reason: $b, request_id: $id}}') ;;
*) echo "issue or revoke" >&2; exit 2 ;;
esac

field() { printf '%s' "$reply" | jq -r "$1"; }

# The body has a request_id, so asking again never does anything twice. curl's own --retry leaves out most of
# what can happen to a POST.
for wait in 1 2 4 0; do
	if reply=$(curl -sS --fail --max-time 90 --cacert "$folder/root.pem" --cert "$folder/caller.pem" --key "$folder/caller.key" \
		-H 'Content-Type: application/json' --data-binary "$body" "$url"); then
		code=$(field '.error.code // .result.detail.code') || code=outcome.unknown
	else
		code=outcome.unknown
	fi
	case $code in
	# An internal error, too many calls at once, no answer, or nothing was refused: the same call can be made again.
	-32603 | 4290 | null | outcome.unknown | keyroom.unreachable | keyroom.behind | store.behind | store.fork) sleep $wait ;;
	-* | [0-9]*) echo "fault $code $(field .error.message)" >&2; exit 2 ;;
	*) break ;;
	esac
	[ $wait != 0 ] || { echo "not known how it ended: $code - run the same command again" >&2; exit 3; }
done

if [ "$(field .result.ok)" != true ]; then
	echo "refused: $(field .result.msg) $code" >&2
	exit 1
fi
unwritten() {
	echo "done, and not written: $1 - run the same command again" >&2
	exit 3
}
field .result.msg || unwritten "the answer"
# A retry, and somebody has revoked the certificate since.
[ "$(field '.result.detail | has("revoked_at")')" = false ] || exit 1
if [ "$(field '.result.detail | has("pkcs12")')" = true ]; then
	# The same request_id always gets the same octets, so the file can be written again.
	field .result.detail.pkcs12 | base64 -d >"$request_id.p12" || unwritten "$request_id.p12"
	field '"password " + .result.detail.password' || unwritten "the password"
fi
