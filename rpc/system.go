package rpc

import (
	"context"
	"maps"
	"slices"
	"strings"
)

// rows is every method that there is, in the order of docs/RPC.md.
func (s *Server) rows() []row {
	return []row{
		method(s, issueMethod, issueHelp, s.issue),
		method(s, renewMethod, renewHelp, s.renew),
		method(s, revokeMethod, revokeHelp, s.revoke),
		method(s, holdMethod, holdHelp, s.hold),
		method(s, releaseMethod, releaseHelp, s.release),
		method(s, retireMethod, retireHelp, s.retire),
		method(s, statusMethod, statusHelp, s.status),
		method(s, findMethod, findHelp, s.find),
		method(s, expiringMethod, expiringHelp, s.expiring),
		method(s, chainMethod, chainHelp, s.chain),
		method(s, whoamiMethod, whoamiHelp, s.whoami),
		{name: "system.listMethods", help: "List the methods.", signature: []string{"array"}, call: s.listMethods},
		{name: "system.methodSignature", help: "Give the types of a method's result and parameters.", signature: []string{"array", "string"}, call: s.methodSignature},
		{name: "system.methodHelp", help: "Describe a method.", signature: []string{"string", "string"}, call: s.methodHelp},
		{name: multicallName, help: multicallHelp, signature: []string{"array", "array"}, call: s.multicall},
		{name: "system.getCapabilities", help: "Name the specifications that are kept to.", signature: []string{"struct"}, call: getCapabilities},
	}
}

func (s *Server) table() map[string]row {
	table := make(map[string]row)
	for _, r := range s.rows() {
		table[r.name] = r
	}
	return table
}

// grantedIn lists the methods of a table that need a grant.
func grantedIn(table map[string]row) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(table)), func(m string) bool {
		return strings.HasPrefix(m, "system.") || m == whoamiMethod
	})
}

func (s *Server) listMethods(_ context.Context, _ *request, params []any) (any, error) {
	if len(params) != 0 {
		return nil, invalid("params", "want none")
	}
	list := []any{}
	for _, m := range slices.Sorted(maps.Keys(s.methods)) {
		list = append(list, m)
	}
	return list, nil
}

// named finds the method that a system method asks about.
func (s *Server) named(params []any) (row, error) {
	if len(params) != 1 {
		return row{}, invalid("params", "%d parameters; want the name of a method", len(params))
	}
	name, ok := params[0].(string)
	if !ok {
		return row{}, invalid("params[0]", "want a string")
	}
	r, ok := s.methods[name]
	if !ok {
		return row{}, invalid("params[0]", "there is no such method; system.listMethods tells which there are")
	}
	return r, nil
}

func (s *Server) methodSignature(_ context.Context, _ *request, params []any) (any, error) {
	r, err := s.named(params)
	if err != nil {
		return nil, err
	}
	types := []any{}
	for _, t := range r.signature {
		types = append(types, t)
	}
	return []any{types}, nil
}

func (s *Server) methodHelp(_ context.Context, _ *request, params []any) (any, error) {
	r, err := s.named(params)
	if err != nil {
		return nil, err
	}
	return r.describe().text(), nil
}

func getCapabilities(_ context.Context, _ *request, params []any) (any, error) {
	if len(params) != 0 {
		return nil, invalid("params", "want none")
	}
	spec := func(url string, version int) map[string]any {
		return map[string]any{"specUrl": url, "specVersion": version}
	}
	return map[string]any{
		"xmlrpc":         spec("http://xmlrpc.com/spec.md", 1),
		"json-rpc":       spec("https://www.jsonrpc.org/specification", 2),
		"introspection":  spec("http://xmlrpc-c.sourceforge.net/introspection.html", 1),
		"faults_interop": spec("http://xmlrpc-epi.sourceforge.net/specs/rfc.fault_codes.php", 20010516),
	}, nil
}
