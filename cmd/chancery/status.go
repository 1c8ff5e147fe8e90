package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/rpc/client"
)

func statusCommand() *cobra.Command {
	var s service
	var wanted members
	cmd := &cobra.Command{
		Use:   "status (--dir DIR | --url URL) (NAME | --serial HEX | --request-id ID)",
		Short: "Show what the service knows of certificates",
		Long: `Ask the running service about all certificates for NAME, the one with a serial number, or the one of an
earlier call: whether it is live, and whether the directory and the list in git say so.`,
		Example: `  chancery status --dir ca alice
  chancery status --dir ca --request-id hr-1002 --output json`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			cn, err := oneName(cmd, args, wanted.text("serial"), wanted.text("request_id"))
			if err != nil {
				return err
			}
			params := wanted.params()
			if cn != "" {
				params["cn"] = cn
			}
			return s.status(cmd.Context(), cmd.OutOrStdout(), params)
		},
	}
	s.flags(cmd)
	wanted = memberFlags(cmd, "ca.status")
	return cmd
}

func (s *service) status(ctx context.Context, w io.Writer, params map[string]any) error {
	if err := s.open(); err != nil {
		return err
	}
	answer, err := s.ask(ctx, "ca.status", params, sameCommand(""))
	if err != nil {
		return errors.Join(printRefusal(w, answer, s.output), err)
	}
	if s.output == "json" {
		return writeJSON(w, answer)
	}
	return s.printStatus(w, answer)
}

func (s *service) printStatus(w io.Writer, answer client.Answer) error {
	var detail struct {
		Certificates []certificateStatus `json:"certificates"`
	}
	if err := json.Unmarshal(answer.Detail, &detail); err != nil {
		return fmt.Errorf("%w: reading the answer: %w", errUnsettled, err)
	}
	return printCertificates(w, answer.Msg, detail.Certificates)
}

func printCertificates(w io.Writer, msg string, certificates []certificateStatus) error {
	var rows [][]string
	if len(certificates) > 0 {
		rows = append(rows, []string{"SERIAL", "PURPOSE", "NAME", "NOT AFTER", "REQUEST ID", "DIRECTORY", "STATE"})
	}
	for _, c := range certificates {
		rows = append(rows, []string{line(c.Serial), line(c.Purpose), line(c.CN), c.NotAfter.Format(time.RFC3339), line(c.RequestID),
			line(c.Directory.State), coloured(w, c.State) + line(c.revocation())})
	}
	var b bytes.Buffer
	fmt.Fprintln(&b, line(msg))
	if err := writeTable(&b, rows); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

type certificateStatus struct {
	Serial    string    `json:"serial"`
	Purpose   string    `json:"purpose"`
	CN        string    `json:"cn"`
	State     string    `json:"state"`
	NotAfter  time.Time `json:"not_after"`
	RequestID string    `json:"request_id"`
	Directory struct {
		State string `json:"state"`
	} `json:"directory"`
	RevokedAt time.Time  `json:"revoked_at"`
	Reason    string     `json:"reason"`
	CRL       *listState `json:"crl"`
}

func (c certificateStatus) revocation() string {
	if c.CRL == nil {
		return ""
	}
	return fmt.Sprintf(" %s, %s; list %s", c.RevokedAt.Format(time.RFC3339), c.Reason, c.CRL)
}

func chainCommand() *cobra.Command {
	var s service
	var out string
	var wanted members
	cmd := &cobra.Command{
		Use:   "chain (--dir DIR | --url URL)",
		Short: "Get the CA certificates that certificates chain to",
		Long: `Ask the running service for the CA certificates that the certificates of a purpose chain to, the issuing
CA first and the root last, as PEM.`,
		Example:           `  chancery chain --dir ca --purpose server --out chain.pem`,
		Args:              exactly(0, "takes no argument"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.chain(cmd.Context(), cmd.OutOrStdout(), wanted.params(), out)
		},
	}
	s.flags(cmd)
	wanted = memberFlags(cmd, "ca.chain")
	cmd.Flags().StringVar(&out, "out", "", "new `FILE` for the PEM, instead of standard output")
	return cmd
}

func (s *service) chain(ctx context.Context, w io.Writer, params map[string]any, out string) error {
	if err := s.open(); err != nil {
		return err
	}
	var file *newFile
	if out != "" {
		var err error
		if file, err = createNew(out, 0o644); err != nil {
			return err
		}
	}
	answer, err := s.ask(ctx, "ca.chain", params, sameCommand(""))
	if err == nil {
		err = s.printChains(w, answer, file)
	}
	if err != nil {
		file.discard()
		return errors.Join(printRefusal(w, answer, s.output), err)
	}
	return nil
}

func (s *service) printChains(w io.Writer, answer client.Answer, file *newFile) error {
	var detail struct {
		Chains []struct {
			Purpose string `json:"purpose"`
			Issuer  string `json:"issuer"`
			Chain   string `json:"chain"`
		} `json:"chains"`
	}
	if err := json.Unmarshal(answer.Detail, &detail); err != nil {
		return fmt.Errorf("%w: reading the answer: %w", errUnsettled, err)
	}
	var text bytes.Buffer
	for _, c := range detail.Chains {
		// Readers of PEM skip what is outside of its blocks.
		fmt.Fprintf(&text, "certificates for the purpose %s, issued by %s\n%s", c.Purpose, c.Issuer, c.Chain)
	}
	if err := file.fill(text.Bytes()); err != nil {
		return fmt.Errorf("writing the chain: %w", err)
	}
	switch {
	case s.output == "json":
		return writeJSON(w, answer)
	case file != nil:
		return printRows(w, answer.Msg, [][2]string{{"chain", file.path}})
	}
	_, err := io.WriteString(w, plain(text.String()))
	return err
}
