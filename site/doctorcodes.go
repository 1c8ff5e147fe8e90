package site

// findingKind is what a code of doctor stands for; alarmKind is the same for what the daemon itself says.
type findingKind struct {
	code     string
	severity Severity // empty: by how near the end is
	meaning  string
	// fix is what to do; {dir} is the installation, {store} its store, {room} the folder of the key room's
	// keys and journal, {subject} what the finding is about.
	fix string
	// contradiction marks what somebody may have altered or exchanged.
	contradiction bool
}

// findingKindOf gives what is known of a code; nothing of codes that are not doctor's own.
func findingKindOf(code string) findingKind {
	for _, c := range findingKinds() {
		if c.code == code {
			return c
		}
	}
	return findingKind{code: code, severity: SeverityWarning}
}

const fixOwner = "find out who changed it; restore it from a backup"

// findingKinds gives every code that doctor can say, in the order of docs/DOCTOR.md.
func findingKinds() []findingKind {
	var all []findingKind
	for _, some := range [][]findingKind{serviceCodes(), keyCodes(), fileCodes(), publicationCodes(), hostCodes()} {
		all = append(all, some...)
	}
	return all
}

func serviceCodes() []findingKind {
	return []findingKind{
		{"config", SeverityCritical, "chancery.yaml cannot be used; most could not be looked at", "correct what the message shows; docs/CONFIG.md has every key", false},
		{"check.denied", SeverityInfo, "this user may not look", "run it as root: sudo chancery doctor {dir}", false},
		{"check.failed", SeverityWarning, "a check could not be made", "mend what the message says, and run chancery doctor {dir} again", false},
		{"check.slow", SeverityWarning, "a check did not end in its time", "find out what it waits for, and run chancery doctor {dir} again", false},
		{"service.stopped", SeverityInfo, "neither of the two processes runs", "start them: systemctl start chancery-keyroom chanceryd, or for evaluation chancery up {dir}", false},
		{"service.room", SeverityCritical, "the daemon runs and the key room does not answer: nothing is signed", "systemctl restart chancery-keyroom, and read its log", false},
		{"service.daemon", SeverityWarning, "the key room runs and the daemon does not", "systemctl start chanceryd, and read its log", false},
		{"store.unreadable", SeverityCritical, "the store cannot be read", fixLog, false},
		{"store.behind", SeverityCritical, "the store is older than the key room: nothing is signed", "stop the daemon and run chancery recover {dir}", true},
		{"room.fork", SeverityCritical, "the key room has read another log than the store holds", fixLog, true},
		{"room.other", SeverityCritical, "this is the key room of another log", fixRoomOld, true},
		{"room.trouble", SeverityWarning, "the key room cannot keep or destroy delivery keys as it should", "docs/RUNBOOK.md has a section for {subject}; the key room's log has the error", false},
		{"clock.behind", SeverityWarning, "the clock is more than a minute behind what has already been recorded", "set the clock, for instance with chronyc makestep", false},
		{"clock.step", SeverityWarning, "more than a day lies between the key room's last record and now; entries stay on lists until it is confirmed", "if the clock is right, stop the key room, run chancery-keyroom confirm-clock --config {dir}/keyroom.json, and start it again", false},
		{"clock.free", SeverityWarning, "nothing keeps the clock right", "install and start a time service: apt-get install chrony", false},
		{"clock.server", SeverityWarning, "the git server's clock is more than five minutes away from ours", "see which of the two is right: date -u; chronyc tracking", false},
		{"owed", SeverityInfo, "something is on its way", fixWait, false},
		{"owed.late", SeverityWarning, "something is owed for more than ten minutes", "the last error says what is in the way; it is tried again by itself", false},
		{"owed.parked", SeverityWarning, "the place refused, and is not tried again by itself", "mend what the last error says; the hourly sweep takes it up again", false},
		{"owed.list", SeverityCritical, "a list is owed for more than an hour; hosts accept what was revoked since", "the last error says what is in the way; mend it today", false},
	}
}

func keyCodes() []findingKind {
	return []findingKind{
		{"key.server", SeverityCritical, "the service's own certificate and key do not fit, or cannot be read", "restore server.pem and server.key, which belong together, from a backup", false},
		{"key.server_chain", SeverityCritical, "the service's own certificate does not chain to trust/root.pem: no caller will believe it", "restore server.pem and trust/root.pem from a backup", false},
		{"key.server_name", SeverityWarning, "the service's own certificate is not for the host that it listens at", "callers must use a name that it has; openssl x509 -in {subject} -noout -ext subjectAltName shows them", false},
		{"key.git", SeverityCritical, "the key that signs commits is not the one in trust/allowed_signers, or cannot be read: hosts will refuse the lists", "restore git_signing.key and trust/allowed_signers, which belong together, from a backup", false},
		{"key.room", SeverityCritical, "a file that the key room needs to start is not there", "put it back: a backup holds all but the passphrase", false},
		{"key.log", SeverityCritical, "trust/log.pub is not the key of the log, or not that of the key room", fixOwner, true},
		{"key.root", SeverityCritical, "trust/root.pem is not the root of the key room", fixOwner, true},
		{"key.issuer", SeverityCritical, "the certificate of an issuing CA does not chain to trust/root.pem", fixOwner, true},
		{"key.signing", SeverityWarning, "chancery.yaml and keyroom.json do not have the same signing_keys of a caller", "make them equal in both files; then reload the daemon and restart the key room", false},
		{"expiry.service", "", "the service's own certificate ends", "each finding says it", false},
		{"expiry.caller", "", "a caller's newest certificate ends", "each finding says it", false},
		{"expiry.foreign", "", "a foreign CA ends, by whose certificates callers come in", "each finding says it", false},
		{"expiry.issuer", "", "an issuing CA ends", "each finding says it", false},
		{"expiry.root", "", "the root ends", "each finding says it", false},
		{"expiry.root_crl", "", "the root's list ends", "each finding says it", false},
		{"expiry.list", "", "a published list ends", "each finding says it", false},
		{"split.user", SeverityWarning, "both processes run as one user, so that nothing but the process boundary keeps the daemon from the CA keys", "run the key room as a user of its own: docs/CONFIG.md, Two users", false},
		{"split.passphrase", SeverityCritical, "the daemon's user can read the passphrase of the CA keys", "give it to the key room's user alone: chown --reference={room}/journal {subject}; chmod 0400 {subject}", false},
		{"split.keys", SeverityCritical, "the daemon's user can read or replace what the key room keeps", "give it to the key room's user alone: chown -R --reference={room}/journal {subject}; chmod 0700 {subject}", false},
		{"split.disk", SeverityInfo, "the passphrase is on the file system of the keys that it opens, so that one stolen disk or backup has both", "name a file on another file system in passphrase_file of {dir}/keyroom.json", false},
		{"offline.here", SeverityWarning, "the keys of the root and of recovery are on this machine", "copy the folder to two media, read them back, then: shred -u {subject}/*.key && rm -r {subject}", false},
		{"offline.clear", SeverityCritical, "the root's key is on this machine, and not even encrypted", "take it off this machine: copy it to a safe place, then: shred -u {subject}", false},
	}
}

func fileCodes() []findingKind {
	return []findingKind{
		{"mode.secret", SeverityCritical, "everybody can read a secret", "chmod 0400 {subject}", false},
		{"mode.folder", SeverityCritical, "everybody can enter the folder of secrets or state", "chmod o-rwx {subject}", false},
		{"mode.writable", SeverityCritical, "everybody can write it", "chmod o-w {subject}; see first who has changed it", false},
		{"mode.owner", SeverityCritical, "it belongs to neither of the two processes' users nor to root, and its owner can replace it", "chown it back: chown --reference=$(dirname {subject}) {subject}", false},
		{"mode.unreadable", SeverityCritical, "the daemon's user cannot read a file that chancery.yaml names", "give it to the daemon's user: chown --reference={store} {subject}", false},
		{"mode.link", SeverityWarning, "a secret is a symbolic link: what it points to is outside this check", "look what it points to; if that is the secret, put the file itself there: cp --remove-destination \"$(readlink -f {subject})\" {subject}", false},
		{"disk.low", SeverityWarning, "less than 512 MiB is free, or less than what is there once more", "make room on its file system: df -h {subject}", false},
		{"disk.full", SeverityCritical, "less than 64 MiB is free: soon nothing is signed", "make room on its file system now: df -h {subject}", false},
		{"disk.inodes", SeverityWarning, "fewer than 1000 files can still be made", "remove files on its file system: df -i {subject}", false},
		{"disk.readonly", SeverityCritical, "the file system is mounted read-only: nothing is signed or published", "see why in dmesg; then: mount -o remount,rw $(findmnt -n -o TARGET -T {subject})", false},
		{"disk.gone", SeverityCritical, "a folder that is needed is not there", "restore it from a backup; state is never made anew", false},
	}
}

func publicationCodes() []findingKind {
	return []findingKind{
		{"directory.file", SeverityCritical, "the directory's file is not there, or the daemon's user cannot replace it", "if it is gone, put it back, from a backup for instance; otherwise give file, lock and folder to the daemon's user: chown --reference={store} {subject}* $(dirname {subject})", false},
		{"directory.unreachable", SeverityCritical, "an LDAP server cannot be asked", "see that it runs and that the way there is open: ldapsearch -x -H {subject} -s base -b ''", false},
		{"directory.tls", SeverityCritical, "an LDAP server does not prove who it is, or we cannot", "compare directory.ca with what the server shows, and the host in the URL with its certificate", false},
		{"directory.bind", SeverityCritical, "an LDAP server does not know us", "compare directory.bind_dn and the password, or the client certificate, with what the directory has: deploy/ldap/README.md", false},
		{"directory.base", SeverityCritical, "the place of the entries is not there, or we may not see it", "correct directory.base, or load deploy/ldap/tree.ldif and access.ldif", false},
		{"directory.uuid", SeverityCritical, "the server does not show entryUUID", "let the account read it: deploy/ldap/access.ldif", false},
		{"directory.rights", SeverityCritical, "we may not write userCertificate", "give the account the right: deploy/ldap/access.ldif", false},
		{"directory.readonly", SeverityCritical, "the server takes no changes", "name a server that does in directory.url", false},
		{"directory.empty", SeverityInfo, "there is no entry yet, or we see none, so that the right to write could not be tried", "nothing, if nobody has an entry yet; otherwise deploy/ldap/access.ldif", false},
		{"git.unreachable", SeverityCritical, "the repository cannot be read", "the message says why: address, key, or network; for a repository here, restore it: any host that pulls it has a clone", false},
		{"git.push", SeverityCritical, "we may not push: no list gets out", "give our key or account the right to push to the branch: deploy/git/README.md; for a repository here: chown -R --reference={store} {subject}", false},
		{"git.locked", SeverityWarning, "somebody holds the branch's lock for more than a minute", "if no git command is running there: rm {subject}", false},
		{"git.branch", SeverityWarning, "the branch is not there, so that nothing is published", "start the daemon, which publishes at once; if the branch was there before, push it back from a clone", false},
		{"git.list_missing", SeverityCritical, "a list is not at the tip of the branch", fixGit, false},
		{"git.list_bad", SeverityCritical, "what is at the tip is not a list of our CA", fixGit, false},
		{"git.list_old", SeverityCritical, "a list at the tip is older than one that was published: somebody put it back", fixGit, false},
		{"git.list_expired", SeverityCritical, "a list at the tip has expired: hosts refuse everybody", "start the daemon, which signs and publishes at once; its log says what is in the way", false},
		{"git.list_unknown", SeverityCritical, "a genuine list at the tip is unknown to the books: the store is an old copy", fixGitAhead, true},
	}
}

func hostCodes() []findingKind {
	return []findingKind{
		{"unit.exposure", SeverityWarning, "a systemd unit is less confined than it should be", "take the unit that was delivered; systemd-analyze security {subject} shows what is open", false},
		{"unit.unknown", SeverityInfo, "units are there, and how confined they are is unknown", "run it where systemd-analyze of systemd 250 or later is: apt-get install systemd", false},
		{"host.swap", SeverityWarning, "memory, with keys in it, can be written to a swap device", "swapoff -a and remove it from /etc/fstab, or encrypt it, or set MemorySwapMax=0 in both units", false},
		{"host.core", SeverityWarning, "a process of the service can leave core files, with keys in them", "restart it: the programs turn that off as they start", false},
	}
}
