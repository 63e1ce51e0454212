package spec

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/vm"
	"github.com/expr-lang/expr/vm/runtime"

	"github.com/coiled-jobs/coiled-jobs/value"
)

// Limits of one evaluation.
const (
	maxElements = 10_000_000       // list elements it may make
	maxTicks    = 10_000_000       // steps of its loops
	maxGrown    = 256 << 20        // bytes of text its loops may make
	maxTime     = 20 * time.Second // in loops
)

// Eval gives the value of the expression, in the plain types of package value.
// The error quotes the expression; its reason is a name without a value,
// operands that do not fit, or more work than the limits above allow.
func (e *Expr) Eval(env *Env) (any, error) {
	v, err := e.eval(env)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", quoteSource(e.Source), err)
	}
	return v, nil
}

// Bool evaluates a condition; a result that is not a bool is an error.
func (e *Expr) Bool(env *Env) (bool, error) {
	v, err := e.Eval(env)
	if err != nil {
		return false, err
	}
	b, ok := v.(bool)
	if !ok {
		return false, fmt.Errorf("%s: the condition gives %s, it must be true or false", quoteSource(e.Source), describe(v))
	}
	return b, nil
}

// runner is what one evaluation at a time needs.
type runner struct {
	vm     vm.VM
	vars   map[string]any
	budget budget
}

func (e *Expr) eval(env *Env) (any, error) {
	if e.program == nil {
		return e.chain(env)
	}
	r, _ := e.pool.Get().(*runner)
	if r == nil {
		r = &runner{vars: make(map[string]any, len(e.binds)+1), vm: vm.VM{MemoryBudget: maxElements}}
		r.vars["$budget"] = &r.budget
	}
	for _, b := range e.binds {
		if b.kind == bindNeedResult || b.kind == bindNeedResults {
			r.vars[b.key] = lazy{env, b} // fetched by $result and $results, if they are reached
			continue
		}
		v, err := b.value(env)
		if err != nil {
			return nil, err
		}
		r.vars[b.key] = v
	}
	r.budget = budget{}
	v, err := r.vm.Run(e.program, r.vars)
	if err != nil {
		return nil, runError(err) // the runner is dropped: its stack may hold anything
	}
	for _, b := range e.binds {
		if b.kind >= bindItem && b.kind != bindIndex && b.kind != bindCount {
			r.vars[b.key] = nil // do not keep items and results alive
		}
	}
	e.pool.Put(r)
	return finish(v)
}

// chain evaluates a plain chain of names.
func (e *Expr) chain(env *Env) (any, error) {
	v, err := e.binds[0].value(env)
	for i, name := range e.path {
		if err != nil {
			return nil, err
		}
		if v == nil {
			return nil, fmt.Errorf("%s is null, it has no field %q",
				strings.TrimPrefix(strings.Join(append([]string{e.binds[0].key}, e.path[:i]...), "."), "$"), name)
		}
		v, err = member(v, name, false)
	}
	if err != nil {
		return nil, err
	}
	return finish(v)
}

// finish makes a result a value of package value.
func finish(v any) (any, error) {
	if reflect.ValueOf(v).Kind() == reflect.Func {
		return nil, errors.New("this is a function, () is missing behind it")
	}
	return normalize(v), nil
}

// runError takes an error of the library apart: errors of our functions as
// they are, everything else by its message.
func runError(err error) error {
	var fe *file.Error
	if !errors.As(err, &fe) {
		return err
	}
	if prev := fe.Unwrap(); prev != nil {
		var re interface{ RuntimeError() }
		if !errors.As(prev, &re) {
			return prev
		}
	}
	return errors.New(friendlier(fe.Message))
}

// value is what a bind stands for.
func (b bind) value(env *Env) (any, error) {
	switch b.kind {
	case bindParam:
		v, ok := env.Params[b.name]
		if !ok {
			return nil, fmt.Errorf("the parameter %s has no value", b.name)
		}
		return v, nil
	case bindParams:
		return env.Params, nil
	case bindEnvVar:
		v, ok := env.Env[b.name]
		if !ok {
			return nil, fmt.Errorf("env.%s is not set", b.name)
		}
		return v, nil
	case bindEnv:
		return env.Env, nil
	case bindItem:
		if !env.HasItem {
			return nil, errors.New("there is no item here")
		}
		return env.Item, nil
	case bindIndex:
		return env.Index, nil
	case bindCount:
		return env.Count, nil
	case bindSuccess:
		return env.success(), nil
	case bindFailure:
		return env.failure(), nil
	case bindAlways:
		return true, nil
	case bindRunID, bindRunStarted, bindRunScheduled:
		return b.runValue(env.Run)
	case bindExitCode, bindSignal, bindCause, bindAttempt, bindStderr:
		return b.failureValue(env.Failure)
	}
	return b.needValue(env.Needs[b.name])
}

func (b bind) runValue(run *RunInfo) (any, error) {
	switch {
	case run == nil:
		return nil, errors.New("there is no run here")
	case b.kind == bindRunID:
		return run.ID, nil
	case b.kind == bindRunStarted:
		return run.Started, nil
	case run.Scheduled.IsZero():
		return nil, nil
	}
	return run.Scheduled, nil
}

func (b bind) failureValue(f *FailureInfo) (any, error) {
	if f == nil {
		return nil, errors.New("there is no failed attempt here")
	}
	switch b.kind {
	case bindExitCode:
		return f.ExitCode, nil
	case bindSignal:
		return f.Signal, nil
	case bindCause:
		return f.Cause, nil
	case bindAttempt:
		return f.Attempt, nil
	}
	return f.Stderr, nil
}

func (b bind) needValue(n *NeedsInfo) (any, error) {
	if n == nil {
		return nil, fmt.Errorf("nothing is known about needs.%s here", b.name)
	}
	switch b.kind {
	case bindNeedCount:
		return n.Count, nil
	case bindNeedFailed:
		return n.Failed, nil
	case bindNeedStatus:
		return n.Status, nil
	}
	if b.kind == bindNeedResult && n.Mapped {
		return nil, fmt.Errorf("%s has a map, so it has many results: use needs.%s.results", b.name, b.name)
	}
	var all []any
	if n.Results != nil {
		var err error
		if all, err = n.Results(); err != nil {
			return nil, err
		}
	}
	switch {
	case b.kind == bindNeedResults:
		return all, nil
	case len(all) == 0:
		return nil, nil
	}
	return all[0], nil
}

// lazy is a value that is fetched when the program reaches it.
type lazy struct {
	env *Env
	b   bind
}

func fetch(args ...any) (any, error) {
	l, ok := args[0].(lazy)
	if !ok {
		return nil, errors.New("results are not available here")
	}
	return l.b.value(l.env)
}

// budget bounds the loops of one evaluation.
type budget struct {
	ticks, grown int
	deadline     time.Time
}

var errBudget = errors.New("the expression takes too long or makes too much text: compute it in a function of its own")

func (b *budget) tick(v any) error {
	b.ticks++
	if s, ok := v.(string); ok {
		b.grown += len(s)
	}
	if b.ticks > maxTicks || b.grown > maxGrown {
		return errBudget
	}
	if b.ticks&0xfff == 0 {
		now := time.Now()
		if b.deadline.IsZero() {
			b.deadline = now.Add(maxTime)
		} else if now.After(b.deadline) {
			return errBudget
		}
	}
	return nil
}

// functions are the functions beyond those of the library. The ones with $ are
// put into programs by the compiler and cannot be written.
var functions = conf.FunctionsTable{
	"basename": pathFunc("basename", value.Basename),
	"dirname":  pathFunc("dirname", value.Dirname),
	"stem":     pathFunc("stem", value.Stem),
	"ext":      pathFunc("ext", value.Ext),
	"$results": {Name: "$results", Func: fetch, Types: []reflect.Type{reflect.TypeFor[func(any) []any]()}},
	"$result":  {Name: "$result", Func: fetch, Types: []reflect.Type{reflect.TypeFor[func(any) any]()}},
	"$get": {Name: "$get", Types: []reflect.Type{reflect.TypeFor[func(any, any) any]()},
		Func: func(args ...any) (any, error) { return member(args[0], args[1], false) }},
	"$maybe": {Name: "$maybe", Types: []reflect.Type{reflect.TypeFor[func(any, any) any]()},
		Func: func(args ...any) (any, error) { return member(args[0], args[1], true) }},
	"$text": {Name: "$text", Types: []reflect.Type{reflect.TypeFor[func(any) any]()},
		Func: func(args ...any) (any, error) { return textual(args[0]), nil }},
	"$deep": {Name: "$deep", Types: []reflect.Type{reflect.TypeFor[func(any) any]()},
		Func: func(args ...any) (any, error) { return deepText(args[0]), nil }},
	"$slice": {Name: "$slice", Func: slice,
		Types: []reflect.Type{reflect.TypeFor[func(string, any, any) string](), reflect.TypeFor[func(any, any, any) any]()}},
	"$keys":     instead("$keys", entriesOf(func(k, _ any) any { return k })),
	"$values":   instead("$values", entriesOf(func(_, v any) any { return v })),
	"$toPairs":  instead("$toPairs", entriesOf(func(k, v any) any { return []any{k, v} })),
	"$flatten":  instead("$flatten", flatten),
	"$string":   instead("$string", func(v any) (string, error) { return value.Text(v), nil }),
	"$toJSON":   instead("$toJSON", toJSON),
	"$fromJSON": instead("$fromJSON", fromJSON),
	"$tick": {Name: "$tick", Types: []reflect.Type{reflect.TypeFor[func(any, any) any]()},
		Func: func(args ...any) (any, error) { return args[1], args[0].(*budget).tick(args[1]) }},
}

func pathFunc(name string, f func(string) string) *builtin.Function {
	return &builtin.Function{Name: name, Types: []reflect.Type{reflect.TypeFor[func(any) string]()},
		Func: func(args ...any) (any, error) {
			switch v := args[0].(type) {
			case string:
				return f(v), nil
			case *value.File:
				return f(v.Path), nil
			default:
				return nil, fmt.Errorf("%s() needs a file or text, not %s", name, describe(v))
			}
		}}
}

// textual is a file as its path and an ordered mapping as a plain one.
func textual(v any) any {
	switch v := v.(type) {
	case *value.File:
		return v.Path
	case *value.Object:
		return deepText(v.Map())
	}
	return v
}

// deepText is textual for what is inside lists and mappings too. What needs no
// change is not copied.
func deepText(v any) any {
	switch v := v.(type) {
	case *value.File, *value.Object:
		return textual(v)
	case []any:
		var out []any
		for i, e := range v {
			if !special(e) {
				continue
			}
			if out == nil {
				out = append(make([]any, 0, len(v)), v...)
			}
			out[i] = deepText(e)
		}
		if out != nil {
			return out
		}
	case map[string]any:
		if special(v) {
			out := make(map[string]any, len(v))
			for k, e := range v {
				out[k] = deepText(e)
			}
			return out
		}
	}
	return v
}

// special says whether there is a file or an ordered mapping in v.
func special(v any) bool {
	switch v := v.(type) {
	case *value.File, *value.Object:
		return true
	case []any:
		for _, e := range v {
			if special(e) {
				return true
			}
		}
	case map[string]any:
		for _, e := range v {
			if special(e) {
				return true
			}
		}
	}
	return false
}

// member is a field of a value whose type was not known before. maybe gives
// nil instead of an error.
func member(base, prop any, maybe bool) (any, error) {
	name, named := prop.(string)
	switch b := base.(type) {
	case nil:
		if maybe {
			return nil, nil
		}
		return nil, fmt.Errorf("null has no field %s", value.Text(prop))
	case *value.File:
		if v, ok := fileField(b, name); ok {
			return v, nil
		}
		if maybe {
			return nil, nil
		}
		return nil, fmt.Errorf("a file has no field %q%s; there are %s", value.Text(prop),
			didYouMean(name, fileFields), strings.Join(fileFields, ", "))
	case *value.Object:
		if named {
			v, _ := b.Get(name)
			return v, nil
		}
	case map[string]any:
		if named {
			return b[name], nil
		}
	case string:
		if named {
			if maybe {
				return nil, nil
			}
			return nil, fmt.Errorf("text has no field %q", name)
		}
		if i, ok := prop.(int); ok {
			return character(b, i, maybe)
		}
	case []any:
		if named {
			if maybe {
				return nil, nil
			}
			return nil, fmt.Errorf("a list has no field %q", name)
		}
	}
	return fetchOther(base, prop, maybe)
}

// fetchOther reads an element of a list, a field or a method of a time and
// whatever else the library knows, which panics when it does not.
func fetchOther(base, prop any, maybe bool) (v any, err error) {
	defer func() {
		if recover() == nil {
			return
		}
		v = nil
		if !maybe {
			err = fmt.Errorf("%s has no element %s", describe(base), value.Text(prop))
		}
	}()
	return runtime.Fetch(base, prop), nil
}

func fileField(f *value.File, name string) (any, bool) {
	switch name {
	case "path":
		return f.Path, true
	case "uri":
		return f.URI, true
	case "name":
		return f.Name, true
	case "stem":
		return f.Stem, true
	case "ext":
		return f.Ext, true
	case "dir":
		return f.Dir, true
	case "size":
		return f.Size, true
	case "modified":
		return f.Modified, true
	case "etag":
		return f.ETag, true
	case "bucket":
		return f.Bucket, true
	case "key":
		return f.Key, true
	}
	return nil, false
}
