// Package keyroom is the only code that touches CA keys. It runs in its own process, has no network,
// and imports only the packages that say what a log, a certificate and a list are, the wire in
// ca/signer, crashpoint, x/mod's tlog and note, and x/crypto.
//
// The room is a reader of the log. It is sent every leaf in order, computes the Merkle tree itself, and
// keeps its own durable position in a journal. It signs a certificate because an issue.intent leaf says
// so, and only if the certificate it builds from its own profile is the one in the leaf; the list that
// it signs contains every revocation it has read. History cannot be rewritten under it, an old store is
// refused by arithmetic, and an old copy of the room meets its own future in the log.
//
// It promises that nothing leaves it before the journal record that tells of it is on stable storage,
// that a serial number is signed at most once, and that signed and voided exclude each other.
package keyroom
