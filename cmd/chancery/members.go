package main

import (
	"strconv"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/rpc"
)

// members are the flags for the members of a method's one parameter: names, values and help are those of
// the method's row in the table of the service.
type members map[string]*member

// member is one of them, as pflag wants a value.
type member struct {
	rpc.Member
	value any // a string, an int or a bool
	given bool
}

func (m *member) String() string {
	switch v := m.value.(type) {
	case int:
		return strconv.Itoa(v)
	case bool:
		return strconv.FormatBool(v)
	}
	return m.value.(string)
}

// Type names the value in a usage.
func (m *member) Type() string {
	if m.Arg == "" {
		return "bool"
	}
	return m.Arg
}

// Set reads a value.
func (m *member) Set(text string) (err error) {
	m.given = true
	switch m.value.(type) {
	case int:
		m.value, err = strconv.Atoi(text)
	case bool:
		m.value, err = strconv.ParseBool(text)
	default:
		m.value = text
	}
	return err
}

// memberFlags adds a flag for each member of a method that has one.
func memberFlags(cmd *cobra.Command, method string) members {
	all := make(members)
	for _, m := range paramsOf(method) {
		if m.Flag == "" {
			continue
		}
		one := &member{Member: m, value: m.Zero()}
		all[m.Name] = one
		f := cmd.Flags().VarPF(one, m.Flag, "", m.Explained())
		if m.Arg == "" {
			f.NoOptDefVal = "true"
		}
		if m.Arg != "FILE" {
			complete(cmd, m.Flag, m.Values...)
		}
	}
	return all
}

func paramsOf(method string) []rpc.Member {
	for _, m := range rpc.Reference() {
		if m.Name == method {
			return m.Params
		}
	}
	return nil
}

// text gives what a string member was given.
func (m members) text(name string) string {
	one, ok := m[name]
	if !ok {
		return ""
	}
	return one.String()
}

// params gives the call's parameter, of the members that were given: a zero is not for this side to understand.
func (m members) params() map[string]any {
	params := make(map[string]any)
	for name, one := range m {
		if one.given {
			params[name] = one.value
		}
	}
	return params
}
