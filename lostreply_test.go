package chancery_test

import (
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/rogpeppe/go-internal/testscript"
)

// lossy stands between a client and a service, and loses the first answers: it passes a call on, and ends
// the connection when the service answers, in turn at the first octet and in the middle of a long answer. The
// call has been carried out then.
type lossy struct {
	listener net.Listener
	service  string
	lose     atomic.Int64 // answers still to be lost
	lost     atomic.Int64
	work     sync.WaitGroup
}

func newLossy(service string, lose int) (*lossy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &lossy{listener: l, service: service}
	p.lose.Store(int64(lose))
	p.work.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			p.work.Go(func() { p.carry(client) })
		}
	})
	return p, nil
}

func (p *lossy) address() string { return p.listener.Addr().String() }

func (p *lossy) close() {
	p.listener.Close()
	p.work.Wait()
}

// middle of the answer to ca.issue, of some ten thousand octets. The service encrypts a start of this length in
// more than one record, so that a client gets to read part of the text.
const middle = 4000

func (p *lossy) carry(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.service)
	if err != nil {
		return
	}
	defer server.Close()
	called := &watcher{to: server}
	var up sync.WaitGroup
	up.Go(func() {
		io.Copy(called, client)
		server.Close()
	})
	buffer := make([]byte, 16<<10)
	answering, losing, left := false, false, 0
	for {
		n, err := server.Read(buffer)
		if n > 0 && called.secret.Load() && !answering {
			answering, losing = true, p.lose.Add(-1) >= 0
			if losing && p.lost.Add(1)%2 == 0 {
				left = middle
			}
		}
		if losing {
			n = min(n, left)
			left -= n
		}
		if _, werr := client.Write(buffer[:n]); err != nil || werr != nil || losing && left == 0 {
			break
		}
	}
	client.Close()
	up.Wait()
}

// watcher passes a client's half of a TLS 1.3 connection on. When an encrypted record has begun the server
// is through with its half of the handshake: since it gives no tickets, what it sends next is its answer.
type watcher struct {
	to     io.Writer
	head   []byte // of the record that is being read
	left   int    // octets of its body that are still to come
	secret atomic.Bool
}

const applicationData = 23 // the type of an encrypted record (RFC 8446 section 5.1)

func (w *watcher) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		if w.left > 0 {
			n := min(w.left, len(rest))
			w.left, rest = w.left-n, rest[n:]
			continue
		}
		n := min(5-len(w.head), len(rest))
		w.head, rest = append(w.head, rest[:n]...), rest[n:]
		if len(w.head) == 5 {
			if w.head[0] == applicationData {
				w.secret.Store(true)
			}
			w.left, w.head = int(w.head[3])<<8|int(w.head[4]), w.head[:0]
		}
	}
	return w.to.Write(b)
}

// losingCommand puts a lossy connection before the service, and sets LOSSY to its address.
func losingCommand(ts *testscript.TestScript, _ *stage, args []string) error {
	if len(args) != 1 {
		return errArguments
	}
	lose, err := strconv.Atoi(args[0])
	if err != nil {
		return errors.Join(err, errArguments)
	}
	p, err := newLossy(ts.Getenv("LISTEN"), lose)
	if err != nil {
		return err
	}
	ts.Defer(func() {
		p.close()
		if left := p.lose.Load(); left > 0 {
			ts.Fatalf("%d answers were not lost", left)
		}
	})
	ts.Setenv("LOSSY", p.address())
	return nil
}
