//go:build unix

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/coiled-jobs/coiled-jobs/agent/warden"
	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/value"
)

// maxItemVar is how large the JSON of an item may be to stand in the
// environment.
const maxItemVar = 100 << 10

// scriptVar begins the names of the variables that hold the values of
// templates in scripts.
const scriptVar = "__COILED_JOBS_"

// ownVars are the variables of a task that never come from outside.
var ownVars = []string{"RUN", "PIPELINE", "FUNCTION", "INDEX", "COUNT", "ATTEMPT", "ITEM", "ITEM_FILE", "RESULT", "NEEDS"}

// function is what is the same for all tasks of a function. It is made when
// its first range arrives and then only read.
type function struct {
	a    *Agent
	f    *spec.Function
	name string

	items    planner.Items
	count    int
	from     string // streams behind this function
	needs    map[string]*spec.NeedsInfo
	needsDir string

	scope    spec.Env          // everything but item and index
	envTask  bool              // some variable depends on the task
	visible  map[string]string // what expressions see as env, if no variable depends on the task
	fixed    []string          // environment that all tasks share
	fixedErr error             // why it could not be made
	path     string            // PATH of tasks, unless it depends on the task
	tmpGiven bool              // the pipeline sets TMPDIR

	rendered *rendered // what runs, if it is the same for all tasks

	mu    sync.Mutex
	found map[string]string // programs by name and PATH
}

// rendered is what a task runs after its templates.
type rendered struct {
	text  string   // of a script
	vars  []string // that a script needs
	argv  []string // of a command
	args  []any    // of a python call; nil: the item
	kw    *value.Object
	setup error
}

// function gives the prepared function. An error is trouble with the store or
// with what the function needs, not with one task.
func (a *Agent) function(ctx context.Context, name string) (*function, error) {
	a.funcsMu.Lock()
	defer a.funcsMu.Unlock()
	if fn := a.funcs[name]; fn != nil {
		return fn, nil
	}
	f := a.run.Pipeline.Function(name)
	if f == nil {
		return nil, fmt.Errorf("the pipeline has no function %q", name)
	}
	fn := &function{a: a, f: f, name: name, found: map[string]string{}}
	if err := fn.prepare(ctx); err != nil {
		return nil, err
	}
	a.funcs[name] = fn
	return fn, nil
}

func (fn *function) prepare(ctx context.Context) (err error) {
	run, f := fn.a.run, fn.f
	fn.count = run.Count(fn.name)
	if from, ok := f.Follows(); ok {
		fn.from = from
	} else if f.Map != nil {
		if fn.items, err = run.Items(ctx, fn.name); err != nil {
			return fmt.Errorf("read the items of %s: %w", fn.name, err)
		}
	}
	if run.Needs != nil {
		if fn.needs, fn.needsDir, err = run.Needs(ctx, fn.name); err != nil {
			return fmt.Errorf("read what %s needs: %w", fn.name, err)
		}
	}
	for _, need := range f.AllNeeds() {
		if need == fn.from {
			continue // task by task
		}
		if err := fn.a.place(ctx, need, -1); err != nil {
			return err
		}
	}
	fn.scope = spec.Env{Params: run.Pipeline.Params, Count: fn.count, Run: &run.Info, Needs: fn.needs}
	for _, list := range [][]spec.EnvVar{run.Pipeline.Env, f.Env} {
		for _, v := range list {
			fn.envTask = fn.envTask || perTask(v.Value.Refs())
		}
	}
	fn.fixEnv()
	if !fn.depends(fn.refs()) && fn.fixedErr == nil {
		env := fn.scope
		env.Env = fn.visible
		fn.rendered = fn.render(&env)
	}
	return nil
}

func perTask(r spec.Refs) bool { return r.Item || r.Index }

// depends says whether something with these names differs between tasks.
func (fn *function) depends(r spec.Refs) bool {
	return perTask(r) || fn.envTask && (r.Env || len(r.EnvVars) > 0)
}

// refs is the names that what runs uses.
func (fn *function) refs() spec.Refs {
	var all spec.Refs
	add := func(r spec.Refs) {
		all.Item, all.Index = all.Item || r.Item, all.Index || r.Index
		all.Env = all.Env || r.Env || len(r.EnvVars) > 0
	}
	if fn.f.Run != nil {
		add(fn.f.Run.Refs())
	}
	for _, v := range fn.f.Command {
		add(v.Refs())
	}
	if p := fn.f.Python; p != nil {
		for _, v := range p.Args {
			add(v.Refs())
		}
		for _, v := range p.Kwargs {
			add(v.Value.Refs())
		}
	}
	return all
}

// fixEnv makes the part of the environment that all tasks share.
func (fn *function) fixEnv() {
	run, f := fn.a.run, fn.f
	// Of a coordinator that is itself a task nothing is passed on but its token.
	drop := map[string]bool{"TMPDIR": true, warden.Variable: true}
	for _, n := range ownVars {
		drop["COILED_JOBS_"+n] = true
	}
	ward := fn.a.mark
	for _, kv := range run.BaseEnv {
		if v, ok := strings.CutPrefix(kv, warden.Variable+"="); ok {
			ward = v + ":" + ward // what is above us must find our tasks too
		}
	}
	var own []string
	if !fn.envTask {
		env := fn.scope
		vars, visible, err := fn.taskVars(&env)
		own, fn.visible, fn.fixedErr = vars, visible, err
	}
	pwdGiven := false
	for _, v := range f.Env {
		drop[v.Name] = true
		fn.tmpGiven = fn.tmpGiven || v.Name == "TMPDIR"
		pwdGiven = pwdGiven || v.Name == "PWD"
	}
	for _, s := range f.Secrets {
		v, ok := run.Secrets[s.Name]
		if !ok {
			continue
		}
		drop[s.Name] = true
		own = append(own, s.Name+"="+v)
	}
	// What a script's templates become is set per task.
	seen := map[string]int{}
	put := func(kv string) {
		name, _, _ := strings.Cut(kv, "=")
		if i, ok := seen[name]; ok {
			fn.fixed[i] = kv
			return
		}
		seen[name] = len(fn.fixed)
		fn.fixed = append(fn.fixed, kv)
	}
	for _, kv := range run.BaseEnv {
		if name, _, _ := strings.Cut(kv, "="); !drop[name] && name != "" && !strings.HasPrefix(name, scriptVar) {
			put(kv)
		}
	}
	for _, kv := range own {
		put(kv)
	}
	if !pwdGiven {
		put("PWD=" + run.Dir) // the caller's may be another folder
	}
	put(warden.Variable + "=" + ward)
	put("COILED_JOBS_RUN=" + run.ID)
	put("COILED_JOBS_PIPELINE=" + run.Pipeline.Name)
	put("COILED_JOBS_FUNCTION=" + fn.name)
	put("COILED_JOBS_COUNT=" + strconv.Itoa(fn.count))
	put("COILED_JOBS_NEEDS=" + fn.needsDir)
	fn.fixed = fn.fixed[:len(fn.fixed):len(fn.fixed)]
	fn.path = lookupVar(fn.fixed, "PATH")
}

func lookupVar(env []string, name string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(env[i], name+"="); ok {
			return v
		}
	}
	return ""
}

// taskVars renders the variables of the pipeline, and gives what expressions
// see as env.
func (fn *function) taskVars(env *spec.Env) (vars []string, visible map[string]string, err error) {
	visible = map[string]string{}
	env.Env = visible
	for _, v := range fn.a.run.Pipeline.Env {
		if visible[v.Name], err = v.Value.Text(env); err != nil {
			return nil, nil, fmt.Errorf("env.%s: %w", v.Name, err)
		}
	}
	at := map[string]int{}
	for _, v := range fn.f.Env {
		text, err := v.Value.Text(env)
		if err != nil {
			return nil, nil, fmt.Errorf("env.%s: %w", v.Name, err)
		}
		if strings.IndexByte(text, 0) >= 0 {
			return nil, nil, fmt.Errorf("env.%s: the value has a NUL byte, which no environment can hold", v.Name)
		}
		if i, ok := at[v.Name]; ok {
			vars[i] = v.Name + "=" + text
			continue
		}
		at[v.Name] = len(vars)
		vars = append(vars, v.Name+"="+text)
	}
	return vars, visible, nil
}

// render evaluates the templates of what runs.
func (fn *function) render(env *spec.Env) *rendered {
	r, f := &rendered{}, fn.f
	switch {
	case f.Run != nil:
		r.text, r.vars, r.setup = f.Run.Render(env)
	case f.Command != nil:
		for i, v := range f.Command {
			if v.Spread {
				r.argv, r.setup = commandOf(v, env)
				return r
			}
			s, err := v.Text(env)
			if err == nil && strings.IndexByte(s, 0) >= 0 {
				err = errors.New("the value has a NUL byte, which no argument can hold")
			}
			if err != nil {
				r.setup = fmt.Errorf("command[%d]: %w", i, err)
				return r
			}
			r.argv = append(r.argv, s)
		}
	case f.Python != nil:
		if f.Python.HasArgs {
			r.args = []any{}
		}
		for i, v := range f.Python.Args {
			if v.Spread {
				list, err := v.EvalList(env)
				if err != nil {
					r.setup = fmt.Errorf("args: %w", err)
					return r
				}
				r.args = append(r.args, list...)
				break
			}
			x, err := v.EvalTask(env)
			if err != nil {
				r.setup = fmt.Errorf("args[%d]: %w", i, err)
				return r
			}
			r.args = append(r.args, x)
		}
		r.kw = &value.Object{}
		for _, v := range f.Python.Kwargs {
			if v.Value.Spread {
				if r.kw, r.setup = v.Value.EvalObject(env); r.setup != nil {
					r.setup = fmt.Errorf("kwargs: %w", r.setup)
				}
				return r
			}
			x, err := v.Value.EvalTask(env)
			if err != nil {
				r.setup = fmt.Errorf("kwargs.%s: %w", v.Name, err)
				return r
			}
			r.kw.Set(v.Name, x)
		}
	}
	return r
}

// commandOf is the argument list that one template gives.
func commandOf(v *spec.Value, env *spec.Env) ([]string, error) {
	list, err := v.EvalList(env)
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("%s: the list is empty, so there is nothing to run", v.Template.Source)
	}
	if err != nil {
		return nil, fmt.Errorf("command: %w", err)
	}
	argv := make([]string, len(list))
	for i, x := range list {
		argv[i] = value.Text(x)
	}
	return argv, nil
}

// program finds the file behind a program's name: in PATH, or from the working
// directory if it has a slash.
func (fn *function) program(name, path string) (string, error) {
	if name == "" {
		return "", errors.New("the name of the program is empty")
	}
	dir := fn.a.run.Dir
	if len(fn.a.run.Wrap) > 0 {
		return name, nil
	}
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, nil
	}
	key := name + "\x00" + path
	fn.mu.Lock()
	defer fn.mu.Unlock()
	if p, ok := fn.found[key]; ok {
		return p, nil
	}
	var denied string
	for _, d := range filepath.SplitList(path) {
		if !filepath.IsAbs(d) {
			d = filepath.Join(dir, d)
		}
		p := filepath.Join(d, name)
		info, err := os.Stat(p)
		if err != nil || info.IsDir() {
			continue
		}
		if info.Mode()&0o111 == 0 {
			denied = p
			continue
		}
		fn.found[key] = p
		return p, nil
	}
	if denied != "" {
		return "", fmt.Errorf("start %q: %s is not executable (chmod +x it)", name, denied)
	}
	return "", &noProgramError{name}
}

// forget makes the next task look a program up again.
func (fn *function) forget(name, path string) {
	fn.mu.Lock()
	delete(fn.found, name+"\x00"+path)
	fn.mu.Unlock()
}

// startError explains why a program could not be started.
func startError(name, path, dir string, err error) error {
	if _, serr := os.Stat(dir); serr != nil {
		return fmt.Errorf("start %q: the working directory is gone: %w", name, serr)
	}
	switch {
	case errors.Is(err, syscall.ENOENT):
		if _, serr := os.Stat(path); serr == nil {
			return fmt.Errorf("start %q: the interpreter in the first line of %s does not exist", name, path)
		}
		return fmt.Errorf("start %q: there is no file %s", name, path)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("start %q: %s is not an executable file (chmod +x it)", name, path)
	case errors.Is(err, syscall.E2BIG):
		return fmt.Errorf("start %q: arguments and environment are too large; read the item from $COILED_JOBS_ITEM_FILE", name)
	}
	return fmt.Errorf("start %q: %w", name, err)
}

// noProgramError is a program that PATH does not have; the exit code is the
// one that shells give.
type noProgramError struct{ name string }

func (e *noProgramError) Error() string {
	return fmt.Sprintf("start %q: there is no such program in PATH; install it or give its path", e.name)
}
