package main

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestParseAgent(t *testing.T) {
	t.Parallel()
	good := []string{"--store", "s3://b/p", "--run", "r", "--kind", "k"}
	for _, c := range []struct {
		name string
		args []string
		want string // part of the error
	}{
		{"fine", good, ""},
		{"variables", append(slices.Clone(good), "--env", "AWS_ENDPOINT_URL=http://h:1/?a=b", "--env=EMPTY="), ""},
		{"no store", good[2:], "--store, --run and --kind are needed"},
		{"no value", append(slices.Clone(good), "--env", "AWS_REGION"), "it is written NAME=VALUE"},
		{"no name", append(slices.Clone(good), "--env", "=x"), "it is written NAME=VALUE"},
		{"relative folder", append(slices.Clone(good), "--dir", "x"), "must be an absolute path"},
		{"too much", append(slices.Clone(good), "x"), `an argument too many: "x"`},
		{"unknown", append(slices.Clone(good), "--no"), "not defined"},
	} {
		var out bytes.Buffer
		o, err := parseAgent(c.args, &out)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		case c.name == "variables" && !slices.Equal(o.env, []string{"AWS_ENDPOINT_URL=http://h:1/?a=b", "EMPTY="}):
			t.Errorf("variables: %q", o.env)
		}
	}
	if code := run(t.Context(), []string{"__agent", "--run", "r"}, nil, &bytes.Buffer{}, &bytes.Buffer{}, os.Environ()); code != exitUsage {
		t.Errorf("exit code %d", code)
	}
}
