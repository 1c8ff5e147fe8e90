package main

import (
	"errors"

	"github.com/spf13/cobra"
)

var errIntegrity = errors.New("integrity")

func recoverCommand() *cobra.Command { return &cobra.Command{Use: "recover"} }
func fsckCommand() *cobra.Command    { return &cobra.Command{Use: "fsck"} }
func auditCommand() *cobra.Command   { return &cobra.Command{Use: "audit"} }
