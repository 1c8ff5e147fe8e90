package site

import "github.com/chancery-ca/chancery/rpc"

// LoadPolicy reads who may do what from chancery.yaml at path, and looks at nothing else that stands there or
// is named there. Its errors are Problems.
func LoadPolicy(path string) (*rpc.Policy, error) {
	c, d, err := parseConfig(path)
	if err != nil {
		return nil, err
	}
	p, err := c.policy()
	return p, d.problems(err)
}

func (c *Config) policy() (*rpc.Policy, error) {
	if c.Callers == nil {
		// It stands at the end: without this, half a file would be taken, and shut everybody out.
		return nil, wrong("callers", "callers is missing; write callers: [] if there are none")
	}
	return rpc.NewPolicy(rpc.Config{Callers: c.Callers})
}
