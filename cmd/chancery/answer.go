package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/chancery-ca/chancery/rpc/client"
)

// printRefusal shows a program the whole of an answer that was not OK. People get its message, with the
// error.
func printRefusal(w io.Writer, answer client.Answer, output string) error {
	if output != "json" || answer.OK || answer.Detail == nil {
		return nil
	}
	return writeJSON(w, answer)
}

// writeTable writes rows in columns.
func writeTable(w io.Writer, rows [][]string) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(table, strings.Join(r, "\t"))
	}
	return table.Flush()
}

// printRows writes a message and named values below it, in one write that fails or does not.
func printRows(w io.Writer, msg string, rows [][2]string) error {
	var b bytes.Buffer
	fmt.Fprintln(&b, line(msg))
	for _, r := range rows {
		fmt.Fprintf(&b, "%-12s %s\n", line(r[0]), line(r[1]))
	}
	_, err := w.Write(b.Bytes())
	return err
}
