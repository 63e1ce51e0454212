package spec

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// bind is a variable of a program and what fills it.
type bind struct {
	key  string // the variable
	kind bindKind
	name string // of the param, environment variable or function
}

type bindKind int

const (
	bindParam bindKind = iota
	bindParams
	bindEnvVar
	bindEnv
	bindItem
	bindIndex
	bindCount
	bindRunID
	bindRunStarted
	bindRunScheduled
	bindNeedCount
	bindNeedFailed
	bindNeedStatus
	bindNeedResult  // lazily, see lazyBinds
	bindNeedResults // lazily
	bindExitCode
	bindSignal
	bindCause
	bindAttempt
	bindStderr
	bindSuccess
	bindFailure
	bindAlways
)

var (
	runFields   = []string{"id", "started", "scheduled"}
	needFields  = []string{"result", "results", "count", "failed", "status"}
	statusFuncs = []string{"success", "failure", "always"}
	fileFields  = []string{"path", "uri", "name", "stem", "ext", "dir", "size", "modified", "etag", "bucket", "key"}
	failNames   = map[string]bindKind{"exit_code": bindExitCode, "signal": bindSignal, "cause": bindCause,
		"attempt": bindAttempt, "stderr": bindStderr}
	reserved = []string{"params", "env", "item", "index", "count", "run", "needs"}
)

// kinds of binds, as the expression library names types; "" is unknown.
func (b bind) typeName(sc *Scope) string {
	switch b.kind {
	case bindParam:
		return sc.Params[b.name]
	case bindEnvVar, bindRunID, bindNeedStatus, bindSignal, bindCause, bindStderr:
		return "string"
	case bindIndex, bindCount, bindNeedCount, bindNeedFailed, bindExitCode, bindAttempt:
		return "int"
	case bindRunStarted:
		return "time"
	case bindSuccess, bindFailure, bindAlways:
		return "bool"
	case bindEnv:
		return "env"
	case bindParams:
		return "params"
	}
	return ""
}

func isReserved(name string) bool {
	_, fail := failNames[name]
	return fail || slices.Contains(reserved, name)
}

// names are the roots that may be used in this scope.
func (sc *Scope) names() []string {
	all := []string{"params"}
	add := func(ok bool, name string) {
		if ok {
			all = append(all, name)
		}
	}
	add(!sc.NoEnv, "env")
	add(sc.Item, "item")
	add(sc.Index, "index")
	add(sc.Count, "count")
	add(sc.Run, "run")
	add(len(sc.Needs) > 0, "needs")
	if sc.Failure {
		all = append(all, slices.Sorted(maps.Keys(failNames))...)
	}
	return all
}

// root finds what a name with up to two fields behind it stands for, and how
// many of the fields belong to it. An error is the message of a problem.
func (sc *Scope) root(name string, fields []string) (b bind, used int, err error) {
	one := func(kind bindKind, allowed bool, where string) (bind, int, error) {
		if !allowed {
			return bind{}, 0, fmt.Errorf("there is no %s here: %s", name, where)
		}
		return bind{key: "$" + name, kind: kind}, 0, nil
	}
	switch name {
	case "params":
		return sc.paramRoot(fields)
	case "env":
		return sc.envRoot(fields)
	case "item":
		return one(bindItem, sc.Item, "item belongs to a function with map, and to where")
	case "index":
		return one(bindIndex, sc.Index, "index belongs to the tasks of a function, and to where")
	case "count":
		return one(bindCount, sc.Count, "count is the number of tasks, known when a task starts")
	case "run":
		return sc.runRoot(fields)
	case "needs":
		return sc.needsRoot(fields)
	}
	if kind, ok := failNames[name]; ok {
		return one(kind, sc.Failure, name+" belongs to retries.when")
	}
	return bind{}, 0, fmt.Errorf("unknown name %q%s", name, sc.nameAdvice(name))
}

// nameAdvice helps with a name that stands alone.
func (sc *Scope) nameAdvice(name string) string {
	if hint := didYouMean(name, sc.names()); hint != "" {
		return hint
	}
	if _, ok := sc.Params[name]; ok {
		return fmt.Sprintf(" (did you mean params.%s?)", name)
	}
	if slices.Contains(sc.Needs, name) {
		return fmt.Sprintf(" (did you mean needs.%s.result?)", name)
	}
	if slices.Contains(fileFields, name) && sc.Item {
		return fmt.Sprintf(" (did you mean item.%s?)", name)
	}
	if slices.Contains(functionNames(), name) {
		return fmt.Sprintf(" (it is a function: %s(...))", name)
	}
	return "; text needs quotes, names are " + strings.Join(sc.names(), ", ")
}

func (sc *Scope) paramRoot(fields []string) (bind, int, error) {
	if len(fields) == 0 {
		return bind{key: "params.*", kind: bindParams}, 0, nil
	}
	p := fields[0]
	if _, ok := sc.Params[p]; !ok && sc.Params != nil {
		names := slices.Sorted(maps.Keys(sc.Params))
		hint := didYouMean(p, names)
		if hint == "" && len(names) == 0 {
			hint = "; the file declares no params"
		} else if hint == "" {
			hint = "; there are " + strings.Join(names, ", ")
		}
		return bind{}, 0, fmt.Errorf("unknown parameter params.%s%s", p, hint)
	}
	return bind{key: "params." + p, kind: bindParam, name: p}, 1, nil
}

func (sc *Scope) envRoot(fields []string) (bind, int, error) {
	if sc.NoEnv {
		return bind{}, 0, fmt.Errorf("env cannot be used here")
	}
	if len(fields) == 0 {
		return bind{key: "env.*", kind: bindEnv}, 0, nil
	}
	v := fields[0]
	if sc.Env != nil && !slices.Contains(sc.Env, v) {
		return bind{}, 0, fmt.Errorf("unknown variable env.%s%s; env in expressions is the env of the pipeline file, not the caller's",
			v, didYouMean(v, sc.Env))
	}
	return bind{key: "env." + v, kind: bindEnvVar, name: v}, 1, nil
}

func (sc *Scope) runRoot(fields []string) (bind, int, error) {
	if !sc.Run {
		return bind{}, 0, fmt.Errorf("there is no run here: run is known when the run starts")
	}
	if len(fields) == 0 {
		return bind{}, 0, fmt.Errorf("run alone is not a value: use run.id, run.started or run.scheduled")
	}
	b := bind{key: "run." + fields[0]}
	switch fields[0] {
	case "id":
		b.kind = bindRunID
	case "started":
		b.kind = bindRunStarted
	case "scheduled":
		b.kind = bindRunScheduled
	default:
		return bind{}, 0, fmt.Errorf("unknown field run.%s%s; there are id, started and scheduled",
			fields[0], didYouMean(fields[0], runFields))
	}
	return b, 1, nil
}

func (sc *Scope) needsRoot(fields []string) (bind, int, error) {
	if len(fields) == 0 {
		return bind{}, 0, fmt.Errorf("needs alone is not a value: use needs.<function>.result, .results, .count, .failed or .status")
	}
	fn := fields[0]
	if !slices.Contains(sc.Needs, fn) {
		hint := didYouMean(fn, sc.Needs)
		switch {
		case slices.Contains(sc.NeedsAll, fn):
			hint = fmt.Sprintf(": add %s to the needs of this function", fn)
		case hint == "":
			if hint = didYouMean(fn, sc.NeedsAll); hint == "" && len(sc.Needs) == 0 {
				hint = ": no needs can be used here"
			}
		}
		return bind{}, 0, fmt.Errorf("needs.%s: %q is not in needs%s", fn, fn, hint)
	}
	if len(fields) == 1 {
		return bind{}, 0, fmt.Errorf("needs.%s alone is not a value: use needs.%s.result, .results, .count, .failed or .status", fn, fn)
	}
	field := fields[1]
	b := bind{key: "needs." + fn + "." + field, name: fn}
	switch field {
	case "count":
		b.kind = bindNeedCount
	case "failed":
		b.kind = bindNeedFailed
	case "status":
		b.kind = bindNeedStatus
	case "results":
		b.kind = bindNeedResults
	case "result":
		b.kind = bindNeedResult
		if sc.NeedsMapped[fn] {
			return bind{}, 0, fmt.Errorf("needs.%s.result: %s has a map, so it has many results: use needs.%s.results", fn, fn, fn)
		}
	default:
		return bind{}, 0, fmt.Errorf("unknown field needs.%s.%s%s; there are result, results, count, failed and status",
			fn, field, didYouMean(field, needFields))
	}
	return b, 2, nil
}

// note records a used name.
func (r *Refs) note(b bind, sc *Scope) {
	switch b.kind {
	case bindParam:
		r.Params = mergeNames(r.Params, []string{b.name})
	case bindParams:
		r.Params = mergeNames(r.Params, slices.Sorted(maps.Keys(sc.Params)))
	case bindEnvVar:
		r.Env = true
		r.EnvVars = mergeNames(r.EnvVars, []string{b.name})
	case bindEnv:
		r.Env = true
		r.EnvVars = mergeNames(r.EnvVars, sc.Env)
	case bindItem:
		r.Item = true
	case bindIndex:
		r.Index = true
	case bindCount:
		r.Count = true
	case bindRunID, bindRunStarted, bindRunScheduled:
		r.Run = true
	case bindNeedCount, bindNeedFailed, bindNeedStatus, bindNeedResult, bindNeedResults:
		r.Needs = mergeNames(r.Needs, []string{b.name})
		switch b.kind {
		case bindNeedStatus:
			r.NeedStatus = mergeNames(r.NeedStatus, []string{b.name})
		case bindNeedFailed:
			r.NeedFailed = mergeNames(r.NeedFailed, []string{b.name})
		}
	case bindSuccess, bindFailure, bindAlways:
		r.Status = true
	default:
		r.Failure = true
	}
}

// field is the shape of a field of something with shape s. An error is the
// message of a problem; a nil shape knows nothing.
func (s *Shape) field(name string) (*Shape, error) {
	switch {
	case s == nil:
		return nil, nil
	case s.File:
		if !slices.Contains(fileFields, name) {
			return nil, fmt.Errorf("a file has no field %q%s; there are %s", name, didYouMean(name, fileFields), strings.Join(fileFields, ", "))
		}
		return nil, nil
	case s.Text:
		return nil, fmt.Errorf("the item is text, it has no field %q", name)
	case s.Int:
		return nil, fmt.Errorf("the item is a number, it has no field %q", name)
	case s.List != nil:
		return nil, fmt.Errorf("the item is a list (of a batch), it has no field %q; use item[0].%s, or map(item, #.%s)", name, name, name)
	case s.Keys != nil:
		f, ok := s.Keys[name]
		if !ok {
			names := slices.Sorted(maps.Keys(s.Keys))
			return nil, fmt.Errorf("the item has no key %q%s; there are %s", name, didYouMean(name, names), strings.Join(names, ", "))
		}
		return f, nil
	}
	return nil, nil
}
