#!/bin/sh
# Brings the revocation lists of a git repository to the servers of this host: fetch, check, install,
# and reload only when something changed. README.md beside this script says how it is set up.
#
#	pull-crl.sh CONFIG
#
# Exit code 0: what is installed is what is published. Anything else: what is installed was not touched,
# or was replaced and still has to be taken up by the servers; the next run tries again.
set -eu
umask 022

fail() {
	echo "pull-crl: $*" >&2
	exit 1
}

[ $# -eq 1 ] || {
	echo "usage: pull-crl.sh CONFIG" >&2
	exit 2
}
case $1 in
/*) config=$1 ;;
*) config=$PWD/$1 ;;
esac

BRANCH=main FILE=pki/bundle.crl.pem STATE=/var/lib/pull-crl CRLCHECK=crlcheck
TEST='nginx -t -q' RELOAD='nginx -s reload' ALLOWED_SIGNERS=
# shellcheck source=/dev/null
. "$config"
for name in REPOSITORY TRUST INSTALL; do
	eval "[ -n \"\${$name-}\" ]" || fail "$config does not set $name"
done

# One run at a time. flock closes the lock for what it runs: a server that a reload starts, or git's
# housekeeping, must not hold it on.
if [ "${PULL_CRL_LOCKED-}" != "$STATE" ]; then
	mkdir -p "$STATE"
	code=0
	PULL_CRL_LOCKED=$STATE flock -o -w 300 -E 75 "$STATE/lock" sh "$0" "$config" || code=$?
	[ "$code" -ne 75 ] || fail "another run has not ended for five minutes"
	exit "$code"
fi

# The repository is kept bare: nothing in it is checked out, followed or filtered on this host. The
# branch only moves forward, so a rewritten history is refused by git.
clone=$STATE/repository.git
git init --quiet --bare "$clone"
GIT_TERMINAL_PROMPT=0 timeout 240 git -C "$clone" fetch --quiet --no-tags "$REPOSITORY" "refs/heads/$BRANCH:refs/heads/$BRANCH" ||
	fail "the branch $BRANCH of $REPOSITORY cannot be fetched, or its history was rewritten"

# Others commit to this repository too; who last changed the file is what counts.
if [ -n "$ALLOWED_SIGNERS" ]; then
	commit=$(git -C "$clone" log -1 --format=%H "refs/heads/$BRANCH" -- "$FILE")
	[ -n "$commit" ] || fail "there is no $FILE on the branch $BRANCH"
	said=$(git -C "$clone" -c gpg.ssh.allowedSignersFile="$ALLOWED_SIGNERS" -c gpg.program=false -c gpg.x509.program=false \
		verify-commit "$commit" 2>&1) || fail "commit $commit changed $FILE and is not signed by anybody in $ALLOWED_SIGNERS: $said"
fi

# crlcheck refuses what is longer; whoever may push must not fill this disk with it.
most=134217728
size=$(git -C "$clone" cat-file -s "refs/heads/$BRANCH:$FILE") || fail "$FILE of the branch $BRANCH cannot be read"
[ "$size" -le "$most" ] || fail "$FILE has $size octets; lists have at most $most"

# A name beside the target makes the rename atomic. What a run left behind that was killed is overwritten.
new=$INSTALL.new
trap 'rm -f "$new"' EXIT
trap 'exit 1' HUP INT TERM
git -C "$clone" cat-file blob "refs/heads/$BRANCH:$FILE" >"$new" || fail "$FILE of the branch $BRANCH cannot be copied to $new"
verdict=$("$CRLCHECK" "$new" --installed "$INSTALL" --trust "$TRUST") ||
	fail "the lists of $(git -C "$clone" rev-parse "refs/heads/$BRANCH") are not installed: ${verdict:-$CRLCHECK gave no verdict}"

# What is owed is written down before the file changes: a reload that a crash or a mistake in the
# servers' configuration prevents is made up for by the next run.
owed=$STATE/reload-owed
if ! cmp -s "$new" "$INSTALL"; then
	: >"$owed"
	sync "$new" "$owed"
	mv -f "$new" "$INSTALL"
	echo "pull-crl: $verdict"
fi
if [ -e "$owed" ]; then
	sh -c "$TEST" || fail "the lists are installed and not in use: the servers' configuration does not pass: $TEST"
	sh -c "$RELOAD" || fail "the lists are installed and not in use: $RELOAD"
	rm -f "$owed"
fi
