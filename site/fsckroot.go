package site

import (
	"context"
	"math/big"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/crl/list"
)

const fixRootList = "install the newest list of the root with chancery root-crl install; it is pki/root.crl.pem of the repository, unless a newer one was signed"

// checkRootList compares the root's list in the key room with the last one that the log names. A newer one
// was installed, and is on its way.
func (f *fsck) checkRootList(context.Context) error {
	held, root := f.room.Hello().RootCRL, f.books.Issuers[cert.Root]
	if f.room.Hello().Room != f.books.Log.Room {
		return nil // of that it has been said
	}
	if root == nil || len(root.Lists) == 0 {
		f.violation("room.root_list", string(cert.Root), fixLog, "the log names no list of the root")
		return nil
	}
	last := root.Lists[len(root.Lists)-1]
	if cert.SHA256(held) == last.SHA256 {
		return nil
	}
	parsed, err := list.Parse(held)
	switch {
	case err != nil:
		f.violation("room.root_list", string(cert.Root), fixRootList, "the list in the key room: %v", err)
	case above(parsed.Number, last.Number):
		f.pending("root_list", string(cert.Root), "nothing, if it is gone in five minutes; otherwise look for crl.root in the service's log",
			"list %s is in the key room, and list %s is the last on the log", parsed.Number, last.Number)
	default:
		f.violation("room.root_list", string(cert.Root), fixRootList, "list %s is in the key room, and list %s is the last on the log", parsed.Number, last.Number)
	}
	return nil
}

func above(n *big.Int, decimal string) bool {
	last, ok := new(big.Int).SetString(decimal, 10)
	return ok && n.Cmp(last) > 0
}
