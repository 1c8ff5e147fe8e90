package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// noneEmpty refuses a flag that was given and is empty, as with a variable of a script that is not set. It would
// mean less than was meant: another request id, every purpose, a CA for all names, or a caller without a pin.
func noneEmpty(flags *pflag.FlagSet) (err error) {
	flags.Visit(func(f *pflag.Flag) {
		empty := f.Value.String() == ""
		if list, ok := f.Value.(pflag.SliceValue); ok {
			empty = slices.Contains(list.GetSlice(), "")
		}
		if empty {
			err = fmt.Errorf("%w: --%s is empty; leave it out instead", errUsage, f.Name)
		}
	})
	return err
}

// noneZero refuses bounds of 0: they would be none.
func noneZero(flags *pflag.FlagSet, names ...string) error {
	for _, name := range names {
		if f := flags.Lookup(name); f.Changed && f.Value.String() == "0" {
			return fmt.Errorf("%w: --%s is 1 or more; leave it out instead", errUsage, name)
		}
	}
	return nil
}

// flagError makes a flag that cannot be read a usage error. Flags are read before words: of a command that is
// misspelt they are all unknown, and the command is what is wrong.
func flagError(cmd *cobra.Command, err error) error {
	if cmd.HasSubCommands() {
		if wrong := subcommand(cmd, cmd.Flags().Args()); wrong != nil {
			return wrong
		}
	}
	var value *pflag.InvalidValueError
	var number *strconv.NumError
	if !errors.As(err, &value) || !errors.As(err, &number) {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	why := "is not a whole number"
	switch {
	case errors.Is(number, strconv.ErrRange):
		why = "is too large"
	case number.Func == "ParseBool":
		why = "is neither true nor false"
	}
	return fmt.Errorf("%w: --%s: %q %s", errUsage, value.GetFlag().Name, value.GetValue(), why)
}
