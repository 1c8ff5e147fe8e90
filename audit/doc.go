// Package audit is the log: what can be entered on it, how an entry is written, the Merkle tree over
// the entries, the checkpoints that commit to it, and the verifier that believes none of these.
//
// It is pure: no I/O, no clock, no keys of its own. It imports ca/cert, and golang.org/x/mod's tlog and
// note for the hashes of RFC 6962 and the signed-note format. Both sides of the wall link it, and so
// does anybody who verifies a log without trusting the CA.
//
// It promises that an event has exactly one encoding: Decode accepts only the bytes that Encode would
// have written, so two readers cannot understand one leaf in two ways.
package audit

// Entry is one record of the log: its index, counted from 0, and its leaf, the bytes that the tree
// commits to.
type Entry struct {
	Index int64
	Leaf  []byte
}
