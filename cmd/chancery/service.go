package main

import (
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/rpc/client"
	"github.com/chancery-ca/chancery/site"
)

// errUnsettled says that the service could not be reached, or that it is not known how a call ended.
var errUnsettled = errors.New("not settled")

// service is the running service that a command asks, and who asks it.
type service struct {
	dir, caller           string
	url, cert, key, trust string
	signingKey            string
	output                string
	notice                string // of the service to its caller, as far as it was shown
	rpc                   *client.Client
}

func (s *service) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.dir, "dir", "", "ask the service of the installation in the folder `DIR` on this machine")
	f.StringVar(&s.caller, "caller", "provisioning", "with --dir: ask as the caller `NAME`, with DIR/callers/NAME.pem and NAME.key; with --url and --signing-key: the caller's name, if the certificate has another")
	f.StringVar(&s.url, "url", "", "ask the service at `https://HOST:PORT`, with --cert, --key and --trust")
	f.StringVar(&s.cert, "cert", "", "`FILE` with the caller's certificate, PEM")
	f.StringVar(&s.key, "key", "", "`FILE` with the caller's key, PEM")
	f.StringVar(&s.trust, "trust", "", "`FILE` with the root certificate that the service's own chains to, PEM")
	f.StringVar(&s.signingKey, "signing-key", "", "`FILE` with the key that signs the caller's requests, PEM, if the service wants them signed")
	completeDir(cmd, "dir")
	complete(cmd, "url")
	complete(cmd, "caller")
	outputFlag(cmd, &s.output)
	cmd.MarkFlagsMutuallyExclusive("dir", "url")
	cmd.MarkFlagsRequiredTogether("url", "cert", "key", "trust")
	cmd.MarkFlagsOneRequired("dir", "url")
	checkOutput := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if !cmd.Flags().Changed("dir") && !cmd.Flags().Changed("url") {
			return fmt.Errorf("%w: say which service: --dir DIR for one on this machine, or --url, --cert, --key and --trust", errUsage)
		}
		if err := cmd.ValidateFlagGroups(); err != nil {
			return fmt.Errorf("%w: %w", errUsage, err)
		}
		switch named := cmd.Flags().Changed("caller"); {
		case s.dir == "" && named && s.signingKey == "":
			return fmt.Errorf("%w: --caller goes with --dir or --signing-key", errUsage)
		case s.dir == "" && !named:
			s.caller = ""
		}
		return checkOutput(cmd, args)
	}
}

// open reads what the flags name. No call is made yet.
func (s *service) open() error {
	if s.dir != "" {
		if err := s.local(); err != nil {
			return err
		}
	}
	u, err := url.Parse(s.url)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" ||
		strings.Trim(u.Path, "/") != "" && u.Path != "/RPC2" && u.Path != "/rpc" {
		return fmt.Errorf("%w: --url is https://HOST:PORT, not %q", errUsage, s.url)
	}
	u.Path = "/rpc"
	config, err := s.tls()
	if err != nil {
		return fmt.Errorf("%w: %w", site.ErrConfig, err)
	}
	s.url, s.rpc = u.String(), client.New(u.String(), config)
	return s.sign(cmp.Or(s.caller, config.Certificates[0].Leaf.Subject.CommonName))
}

// sign has every request signed, if there is a key for it.
func (s *service) sign(caller string) error {
	if s.signingKey == "" {
		return nil
	}
	text, err := os.ReadFile(s.signingKey)
	if err != nil {
		return fmt.Errorf("%w: --signing-key: %w", errUsage, err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return fmt.Errorf("%w: --signing-key: %s holds no key in PEM", errUsage, s.signingKey)
	}
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return fmt.Errorf("%w: --signing-key: %w (want PKCS#8, as openssl genpkey writes it)", errUsage, err)
	}
	key, ok := private.(crypto.Signer)
	if !ok {
		return fmt.Errorf("%w: --signing-key: %s holds a key that cannot sign", errUsage, s.signingKey)
	}
	root, err := s.root()
	if err != nil {
		return err
	}
	s.rpc.Sign(root, caller, key)
	return nil
}

// root is the certificate by which signed requests name the installation.
func (s *service) root() (*x509.Certificate, error) {
	text, err := os.ReadFile(s.trust)
	if err != nil {
		return nil, fmt.Errorf("reading the root certificate: %w", err)
	}
	block, rest := pem.Decode(text)
	if another, _ := pem.Decode(rest); block == nil || another != nil {
		return nil, fmt.Errorf("%w: with --signing-key, %s has to hold the root certificate of the installation and no other: signatures name it", errUsage, s.trust)
	}
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errUsage, s.trust, err)
	}
	return root, nil
}

// local takes address and files from an installation.
func (s *service) local() error {
	config, err := site.LoadConfig(filepath.Join(s.dir, site.ConfigName))
	if err != nil {
		return err
	}
	host, _, err := net.SplitHostPort(config.Listen)
	if ip := net.ParseIP(host); err != nil || host == "" || ip != nil && ip.IsUnspecified() {
		return fmt.Errorf("%w: the service listens at %s, which says not under which name it is called: use --url, --cert, --key and --trust", errUsage, config.Listen)
	}
	caller := filepath.Join(filepath.Dir(config.Path), "callers", s.caller)
	s.url, s.cert, s.key = "https://"+config.Listen, caller+".pem", caller+".key"
	s.trust = filepath.Join(config.Trust, "root.pem")
	return nil
}

func (s *service) tls() (*tls.Config, error) {
	own, err := tls.LoadX509KeyPair(s.cert, s.key)
	if err != nil {
		return nil, fmt.Errorf("reading the caller's certificate and key: %w", err)
	}
	if end := own.Leaf.NotAfter; time.Now().After(end) {
		return nil, fmt.Errorf("the caller's certificate in %s expired at %s: have another issued, with purpose caller", s.cert, end.Format(time.RFC3339))
	}
	text, err := os.ReadFile(s.trust)
	if err != nil {
		return nil, fmt.Errorf("reading the root certificate: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", s.trust)
	}
	return &tls.Config{Certificates: []tls.Certificate{own}, RootCAs: roots, MinVersion: tls.VersionTLS13}, nil
}

// newRequestID makes an id that nobody has used. It is made before the first try, because only a call
// that has one can be made again.
func newRequestID() (string, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("drawing a request id: %w", err)
	}
	return "cli-" + hex.EncodeToString(b[:]), nil
}

// requestIDIn gives the request id of a call; without one it makes one.
func requestIDIn(params map[string]any) (id string, err error) {
	if params["request_id"] == nil {
		params["request_id"], err = newRequestID()
	}
	id, _ = params["request_id"].(string)
	return id, err
}

const (
	tries     = 4
	firstWait = time.Second      // before the second try; twice as long before each further one
	tryTime   = 90 * time.Second // the service itself gives up after a minute
)

// ask makes a call, and makes it again while it is unknown how it ended: with a request id, or where
// nothing is changed, nothing is done twice. The answer is one with OK. The error for any other says how to
// go on, and has the exit code in its chain; the answer is given with it, if there was one.
func (s *service) ask(ctx context.Context, method string, params map[string]any, again string) (client.Answer, error) {
	defer s.rpc.Close()
	asked := false // a call may have reached the service
	for try, wait := 1, firstWait; ; try, wait = try+1, 2*wait {
		s.progress("asking %s, %s (%d of %d)", s.url, method, try, tries)
		answer, err := s.once(ctx, method, params)
		s.showNotice(os.Stderr, answer)
		if err == nil && answer.OK {
			return answer, nil
		}
		verdict, unsettled := s.judge(answer, err, asked)
		asked = asked || !neverSent(err)
		if unsettled && asked && try < tries && ctx.Err() == nil {
			s.progress("%v", verdict)
			select {
			case <-ctx.Done():
			case <-time.After(wait):
				continue
			}
		}
		if unsettled && asked || errors.Is(verdict, errIntegrity) {
			verdict = fmt.Errorf("%w; ask again: %s", verdict, again)
		}
		return answer, verdict
	}
}

// showNotice passes on, once, what the service has to say of the caller's own certificate. A program has it in JSON.
func (s *service) showNotice(w io.Writer, answer client.Answer) {
	var detail struct {
		Notice string `json:"notice"`
	}
	if s.output == "json" || json.Unmarshal(answer.Detail, &detail) != nil || detail.Notice == s.notice {
		return
	}
	s.notice = detail.Notice
	fmt.Fprintln(w, "notice: "+line(detail.Notice))
}

func (s *service) once(ctx context.Context, method string, params map[string]any) (client.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	var answer client.Answer
	err := s.rpc.Call(ctx, method, params, &answer)
	return answer, err
}

// Numbers of faults, see docs/RPC.md.
const (
	faultInternal = -32603
	faultCaller   = 4010
	faultUnsigned = 4011
	faultTooMany  = 4290
)

// judge says what to report of a call that was not answered with OK. asked tells whether an earlier try may
// have reached the service: then a closed door settles nothing, because that try may have been carried out.
func (s *service) judge(answer client.Answer, err error, asked bool) (verdict error, unsettled bool) {
	var fault *client.Fault
	var server *tls.CertificateVerificationError
	var network *net.OpError
	switch {
	case err == nil:
		return judgeAnswer(answer, asked)
	case errors.As(err, &fault) && fault.Code == faultUnsigned && s.signingKey == "":
		return fmt.Errorf("%w: give the key that signs this caller's requests with --signing-key: %w", errUsage, fault), false
	case errors.As(err, &fault):
		return judgeFault(fault, asked)
	case asked:
	case errors.As(err, &server):
		return fmt.Errorf("%w: the service at %s is not the one that %s vouches for, and nothing was asked: %w", site.ErrConfig, s.url, s.trust, server), false
	case neverSent(err):
		return fmt.Errorf("%w: nothing was asked, there is no service at %s: is it running? %w", errUnsettled, s.url, err), false
	case errors.As(err, &network) && network.Op == "remote error":
		return fmt.Errorf("%w: the service ended the connection: is the certificate in %s that of a caller in its configuration, and neither expired nor revoked? Is clientAuth its only extended key usage? %w", errUnsettled, s.cert, err), false
	}
	return fmt.Errorf("%w: no answer came, so it is not known how the call ended: %w", errUnsettled, err), true
}

// neverSent tells whether a call ended before there was a connection.
func neverSent(err error) bool {
	var network *net.OpError
	return errors.As(err, &network) && network.Op == "dial"
}

func judgeAnswer(answer client.Answer, asked bool) (verdict error, unsettled bool) {
	var detail struct {
		Code string `json:"code"`
	}
	if err := json.Unmarshal(answer.Detail, &detail); err != nil {
		return fmt.Errorf("%w: the answer has no code: %w", errUnsettled, err), true
	}
	said := fmt.Errorf("%s (%s)", answer.Msg, detail.Code)
	switch detail.Code {
	case "outcome.unknown", "keyroom.unreachable":
		return fmt.Errorf("%w: %w", errUnsettled, said), true
	case "store.behind", "store.fork", "keyroom.behind":
		return fmt.Errorf("%w: %w", errIntegrity, said), false
	case "policy.denied":
		if asked { // grants are looked at before request ids
			return fmt.Errorf("%w: %w", errUnsettled, said), true
		}
	}
	return fmt.Errorf("refused: %w", said), false
}

func judgeFault(fault *client.Fault, asked bool) (verdict error, unsettled bool) {
	switch {
	case fault.Code == faultInternal, fault.Code == faultTooMany, fault.Code == faultCaller && asked:
		return fmt.Errorf("%w: %w", errUnsettled, fault), true
	case fault.Code == faultCaller:
		return fmt.Errorf("refused: %w", fault), false
	}
	return fmt.Errorf("%w: %w", errUsage, fault), false
}

// sameCommand is this command line with the request id in it.
func sameCommand(requestID string) string {
	words := slices.Clone(os.Args)
	given := slices.ContainsFunc(words, func(w string) bool { return w == "--request-id" || strings.HasPrefix(w, "--request-id=") })
	if !given && requestID != "" {
		words = append([]string{words[0], words[1], "--request-id", requestID}, words[2:]...)
	}
	for i, w := range words {
		words[i] = site.ShellWord(w)
	}
	return strings.Join(words, " ")
}
