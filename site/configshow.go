package site

import (
	"fmt"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/chancery-ca/chancery/ca/cert"
	"github.com/chancery-ca/chancery/credential"
	"github.com/chancery-ca/chancery/rpc"
)

// Setting is one key of the configuration as it takes effect.
type Setting struct {
	Key    string `json:"key"`
	Value  any    `json:"value"`  // a string, a number, a boolean or a list of strings
	Origin string `json:"origin"` // FILE:LINE:COLUMN, or default
}

// Settings is a configuration with its defaults filled in. A key that is not set and has no default is not
// in it. Paths are absolute; secrets are names of files.
type Settings struct {
	All  []Setting
	tree yaml.MapSlice
}

// ShowConfig reads chancery.yaml at path.
func ShowConfig(path string) (Settings, error) {
	c, d, err := readConfig(path)
	if err != nil {
		return Settings{}, err
	}
	c.fill()
	if c.loaded {
		c.Secrets = credential.Prefix + filepath.Base(c.Secrets) // a path would be a folder
	}
	s := settler{document: d}
	tree, _ := s.value(reflect.ValueOf(c), "")
	return Settings{s.all, tree.(yaml.MapSlice)}, nil
}

// YAML gives them as a file that means the same, with the origins behind the keys if that is wanted.
func (s Settings) YAML(origins bool) ([]byte, error) {
	comments := yaml.CommentMap{}
	for _, one := range s.All {
		if origins {
			comments["$."+one.Key] = []*yaml.Comment{yaml.LineComment(" " + one.Origin)}
		}
	}
	return yaml.MarshalWithOptions(s.tree, yaml.WithComment(comments), yaml.IndentSequence(true))
}

// fill puts defaults where nothing is set.
func (c *Config) fill() {
	for i := range c.Callers {
		if c.Callers[i].PerSecond == 0 {
			c.Callers[i].PerSecond = rpc.DefaultPerSecond
		}
	}
	if d := c.Directory; d != nil && !d.isFile() {
		places := d.places()
		d.User, d.Server = PlaceConfig(places[cert.User]), PlaceConfig(places[cert.Server])
	}
}

// settler takes a configuration apart.
type settler struct {
	*document
	all []Setting
}

// value gives what a key holds as YAML; false if there is nothing to say of it.
func (s *settler) value(v reflect.Value, key string) (any, bool) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil, false
		}
		return s.value(v.Elem(), key)
	case reflect.Struct:
		return s.members(v, key)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Struct {
			var list []any
			for i := range v.Len() {
				item, _ := s.value(v.Index(i), fmt.Sprintf("%s[%d]", key, i))
				list = append(list, item)
			}
			return list, len(list) > 0
		}
	}
	_, set := s.places[key]
	if !set && v.IsZero() && v.Kind() != reflect.Bool {
		return nil, false
	}
	one := Setting{key, v.Interface(), "default"}
	if t := s.places[key]; set {
		one.Origin = fmt.Sprintf("%s:%d:%d", s.file, t.Position.Line, t.Position.Column)
	}
	s.all = append(s.all, one)
	return one.Value, true
}

func (s *settler) members(v reflect.Value, key string) (yaml.MapSlice, bool) {
	var members yaml.MapSlice
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		if name == "" || name == "-" {
			continue
		}
		if held, ok := s.value(v.Field(i), strings.TrimPrefix(key+"."+name, ".")); ok {
			members = append(members, yaml.MapItem{Key: name, Value: held})
		}
	}
	return members, len(members) > 0
}
