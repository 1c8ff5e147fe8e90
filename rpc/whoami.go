package rpc

import (
	"context"
	"fmt"
)

const whoamiMethod = "ca.whoami"

const whoamiHelp = `Tell who you are to this service and what you may do. Needs no grant. Answers ok, a message, and details:
code request_id caller not_after key per_second grants[]{rule methods purposes names domains
networks}. A grant allows what fits all of it. Its one parameter is a struct without members.`

type whoamiParams struct{}

func (whoamiParams) about() about { return about{} }

func (s *Server) whoami(_ context.Context, rq *request, _ whoamiParams) (answer, error) {
	grants := []any{}
	for _, g := range rq.caller.grants {
		networks := []string{}
		for _, n := range g.networks {
			networks = append(networks, n.String())
		}
		grants = append(grants, map[string]any{
			"rule": g.rule, "methods": list(g.methods), "purposes": list(g.purposes), "names": list(g.names),
			"domains": list(g.domains), "networks": list(networks),
		})
	}
	msg := fmt.Sprintf("you are %s, until %s; grants: %d", rq.caller.name, rq.ends.UTC().Format("2006-01-02"), len(grants))
	return answer{true, msg, map[string]any{
		"code": "whoami", "caller": rq.caller.name, "not_after": rq.ends, "key": rq.who.Key,
		"per_second": int(rq.caller.limit.Limit()), "grants": grants,
	}}, nil
}

// list makes an array as both codecs know it.
func list[S ~string](items []S) []any {
	all := []any{}
	for _, s := range items {
		all = append(all, string(s))
	}
	return all
}
