package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/coiled-jobs/coiled-jobs/engine"
)

// The names of the variables in which the runner hands over the inputs of
// action.yml, and scripts/action/main.js what it knows of the step. They never
// become part of a command line, and tasks do not see them.
const (
	githubInput  = "INPUT_"
	githubMemory = "COILED_JOBS_STEP_FILE"
)

// githubInputs are the inputs of action.yml that are read here, githubOthers
// those that scripts/action/main.js reads.
var (
	githubInputs = []string{"file", "command", "params", "cloud", "store", "key", "max-cost", "detach", "run", "outputs", "matrix"}
	githubOthers = []string{"working-directory", "version", "token"}
)

func (g *githubStep) input(name string) string {
	return strings.TrimSpace(g.given[inputVariable(name)])
}

// inputVariable is how the runner hands over an input.
func inputVariable(name string) string { return githubInput + strings.ToUpper(name) }

func (g *githubStep) flag(name string, unset bool) (bool, error) {
	switch v := strings.ToLower(g.input(name)); v {
	case "":
		return unset, nil
	case "false", "no", "0":
		return false, nil
	case "true", "yes", "1":
		return true, nil
	default:
		return false, usagef("%s: %q is neither true nor false", name, v)
	}
}

// params are the lines name=value, or a JSON object.
func (g *githubStep) params() (map[string]string, error) {
	text := g.input("params")
	if strings.HasPrefix(text, "{") {
		var object map[string]json.RawMessage
		if err := json.Unmarshal([]byte(text), &object); err != nil {
			return nil, usagef("params: begins like a JSON object but is none: %v", err)
		}
		params := map[string]string{}
		for name, raw := range object {
			var s string
			switch err := json.Unmarshal(raw, &s); {
			case err == nil && string(raw) != "null":
				params[name] = s
			case raw[0] == '{' || raw[0] == '[' || string(raw) == "null":
				return nil, usagef("params: %s: write text, a number, true or false", name)
			default:
				params[name] = string(raw)
			}
		}
		return params, nil
	}
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimRight(line, "\r\n"); strings.TrimSpace(line) != "" {
			lines = append(lines, strings.TrimLeft(line, " \t"))
		}
	}
	return parseParams(lines)
}

// options is the inputs as flags of apply and plan.
func (g *githubStep) options() (o engine.ApplyOptions, err error) {
	o = engine.ApplyOptions{File: g.file, Cloud: g.input("cloud")}
	if o.Cloud != "" && !slices.Contains(clouds, o.Cloud) {
		return o, usagef("cloud: %q; write %s", o.Cloud, strings.Join(clouds, " or "))
	}
	if o.Params, err = g.params(); err != nil {
		return o, err
	}
	if m := g.input("max-cost"); m != "" {
		if o.MaxCost, err = parseDollars(m); err != nil {
			return o, err
		}
	}
	return o, checkFile(o.File)
}

// key names the run of this step in this run of the workflow: "re-run failed
// jobs" joins it, or goes on with it. Other parameters are another run.
func (g *githubStep) key(o engine.ApplyOptions) string {
	if key := g.input("key"); key != "" {
		return key
	}
	a := g.app
	id := a.getenv("GITHUB_RUN_ID")
	if id == "" || a.getenv("ACT") == "true" && id == "1" {
		return "" // not GitHub; act calls all its runs 1
	}
	params, err := json.Marshal(o.Params) // keys are sorted
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %s %q", g.inRepository(o.File), o.Cloud, params, g.input("matrix")))
	return strings.Join([]string{"github", a.getenv("GITHUB_REPOSITORY"), id, a.getenv("GITHUB_JOB"),
		a.getenv("GITHUB_ACTION"), hex.EncodeToString(sum[:6])}, "/")
}
