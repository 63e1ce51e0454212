package spec

import (
	"slices"
	"strings"
	"time"
)

// funcScope is a function while it is read.
type funcScope struct {
	name   string
	pos    Pos
	body   *node // with defaults merged in
	path   *keyPath
	needs  []string // with from's
	item   *Shape
	scopes [scopeRun + 1]*Scope
	// What its texts use, for Map.Barrier.
	count   bool
	results map[string]bool

	columns []Column
}

// scope is the names that a text may use here.
func (d *decoder) scope(kind scopeKind) *Scope {
	fn := d.fn
	scopes := &d.topScopes
	if fn != nil && !shared(kind) {
		scopes = &fn.scopes
	}
	if sc := scopes[kind]; sc != nil {
		return sc
	}
	sc := &Scope{Params: d.paramTypes, Env: d.envNames}
	switch kind {
	case scopeTopEnv:
		sc.NoEnv, sc.Run = true, true
	case scopeTask, scopeMap, scopeWhere, scopeIf:
		sc.Run, sc.NeedsAll, sc.NeedsMapped = true, d.names, d.mapped
		if fn != nil {
			sc.Needs = fn.needs
		}
	case scopeRun:
		sc.Run = true
	}
	mapped := fn != nil && fn.body.get("map") != nil
	switch kind {
	case scopeTask:
		sc.Item, sc.Index, sc.Count = mapped, true, true
	case scopeWhere:
		sc.Item, sc.Index = true, true
	case scopeIf:
		sc.Status = true
	case scopeWhen:
		sc.Failure, sc.Item, sc.Index = true, mapped, true
	}
	if sc.Item && fn != nil {
		sc.ItemShape = fn.item
	}
	scopes[kind] = sc
	return sc
}

// shared says whether a scope is the same for all functions.
func shared(kind scopeKind) bool {
	return kind == scopeConfig || kind == scopeTopEnv || kind == scopeRun
}

// setItem says what is known about the item for what is read from now on.
func (fn *funcScope) setItem(s *Shape) {
	fn.item = s
	fn.scopes[scopeTask], fn.scopes[scopeWhere], fn.scopes[scopeWhen] = nil, nil, nil
}

// pipelineFunctions reads functions and defaults.
func (d *decoder) pipelineFunctions(p *Pipeline, given map[string]*node, secrets []Secret, top *keyPath) {
	n := given["functions"]
	at := top.key("functions")
	if n != nil {
		if s := topKeys.find("functions").shape; n.kind != mappingNode && n.kind != badNode {
			d.wrong(n, s, at, "")
		} else if n.kind == mappingNode && len(n.pairs) == 0 {
			d.report(n.pos, at, "there are no functions: expected %s", s.what)
		}
		if len(n.pairs) > maxFunctions {
			d.report(n.pos, at, "%d functions, at most %d are possible: use one function with a map", len(n.pairs), maxFunctions)
			return
		}
		d.byName, d.mapped = map[string]*funcScope{}, map[string]bool{}
		for i := range n.pairs {
			pr := &n.pairs[i]
			d.checkName(pr.key, nameIdent, pr.path(at))
			d.names = append(d.names, pr.key.text)
			d.mapped[pr.key.text] = pr.value.get("map") != nil
		}
	}
	defaults := given["defaults"]
	dflt := d.defaults(defaults, top.key("defaults"))
	secrets = mergeSecrets(secrets, dflt)
	if n == nil {
		return
	}
	for i := range n.pairs {
		pr := &n.pairs[i]
		fs := &funcScope{name: pr.key.text, pos: pr.key.pos, path: pr.path(at), results: map[string]bool{}}
		if pr.value.kind != mappingNode {
			if pr.value.kind != badNode {
				d.wrong(pr.value, functionShape, fs.path, "")
			}
			continue
		}
		fs.body = d.withDefaults(pr.value, defaults, given, top)
		d.functions = append(d.functions, fs)
		d.byName[fs.name] = fs
	}
	for _, fs := range d.functions {
		fs.needs = d.rawNeeds(fs)
	}
	for _, fs := range d.functions {
		if f := d.function(fs, secrets); f != nil {
			p.Functions = append(p.Functions, f)
		}
	}
	d.checkCycles()
}

// defaults checks the defaults by themselves, as if for a function with a map
// that needs all others, and gives their secrets.
func (d *decoder) defaults(n *node, at *keyPath) []Secret {
	if n == nil {
		return nil
	}
	s := topKeys.find("defaults").shape
	if n.kind != mappingNode {
		d.check(n, s, at)
		return nil
	}
	d.fn = &funcScope{name: "", body: &node{kind: mappingNode, pairs: []pair{{key: &node{text: "map"}, value: n}}}, path: at, needs: d.names, results: map[string]bool{}}
	defer func() { d.fn = nil }()
	f := d.check(n, s, at)
	return d.secrets(f.get("secrets"))
}

// withDefaults is the body of a function with what defaults and the top of the
// file add to it.
func (d *decoder) withDefaults(body, defaults *node, given map[string]*node, top *keyPath) *node {
	out := body
	if defaults != nil && defaults.kind == mappingNode {
		known := *defaults
		known.pairs = slices.DeleteFunc(slices.Clone(defaults.pairs), func(p pair) bool { return defaultsKeys.find(p.key.text) == nil })
		out = d.overlay(out, &known, functionKeys, top.key("defaults"))
	}
	common := &node{kind: mappingNode}
	for _, name := range []string{"software", "files"} {
		if n := given[name]; n != nil {
			common.pairs = append(common.pairs, pair{key: &node{kind: scalarNode, text: name, pos: n.pos, src: n.src}, value: n})
		}
	}
	if len(common.pairs) > 0 {
		out = d.overlay(out, common, functionKeys, top)
	}
	return out
}

// overlay is a mapping with the pairs of base that it does not have itself.
// env, hardware with its tags, software and files are merged key by key; of
// two ways to say the same thing the mapping's own counts.
func (d *decoder) overlay(over, base *node, ks *keySet, origin *keyPath) *node {
	if !d.spend(over, len(over.pairs)+len(base.pairs)) {
		return over
	}
	out := *over
	out.pairs = make([]pair, 0, len(over.pairs)+len(base.pairs))
	own := make(map[string]*node, len(over.pairs))
	for _, p := range over.pairs {
		own[p.key.text] = p.value
	}
	merged := map[string]*node{}
	for _, b := range base.pairs {
		name := b.key.text
		if b.origin == nil {
			b.origin = origin
		}
		mine := own[name]
		switch {
		case mine == nil && !displaced(name, own, ks):
			out.pairs = append(out.pairs, b)
		case mine != nil && mine.kind == mappingNode && b.value.kind == mappingNode && slices.Contains(mergedKeys, name):
			var keys *keySet
			if def := functionKeys.find(name); def != nil {
				keys = def.shape.keys
			}
			merged[name] = d.overlay(mine, b.value, keys, b.origin.key(name))
		}
	}
	for _, p := range over.pairs {
		if m := merged[p.key.text]; m != nil {
			p.value = m
		}
		out.pairs = append(out.pairs, p)
	}
	return &out
}

var mergedKeys = []string{"env", "hardware", "tags", "software", "files"}

// displaced says whether a default has no place beside what the function says
// itself: a shell without run, a container beside a Python version.
func displaced(name string, own map[string]*node, ks *keySet) bool {
	if ks == nil {
		return false
	}
	has := func(other string) bool { return own[other] != nil }
	if def := ks.find(name); def != nil && len(def.with) > 0 && !slices.ContainsFunc(def.with, has) {
		return true
	}
	groups := ks.exclusive
	if ks == hardwareKeys {
		groups = [][2][]string{choosesMachine}
	}
	for _, g := range groups {
		for i := range g {
			if slices.Contains(g[i], name) && slices.ContainsFunc(g[1-i], has) {
				return true
			}
		}
	}
	return false
}

// function reads one function; nil if nothing sensible came out.
func (d *decoder) function(fs *funcScope, secrets []Secret) *Function {
	d.fn, d.note = fs, " (in function "+fs.name+")"
	defer func() { d.fn, d.note = nil, "" }()

	known, _ := d.objectKeys(fs.body, functionKeys, fs.path, fs.pos)
	fields := make(map[string]*field, len(known))
	check := func(only func(name string) bool) {
		for _, k := range known {
			if only(k.def.name) {
				fields[k.def.name] = d.check(k.pair.value, k.def.shape, k.pair.path(fs.path))
			}
		}
	}
	f := &Function{Name: fs.name, Pos: fs.pos}
	// The map first: it says what item is.
	check(func(name string) bool { return name == "map" })
	if m := fields["map"]; m != nil {
		var shape *Shape
		f.Map, shape = d.mapOf(m)
		fs.setItem(shape)
	}
	check(func(name string) bool { return name != "map" })

	f.Description = str(fields["description"], "")
	d.whatRuns(f, fields)
	f.Result = ResultMode(str(fields["result"], ""))
	f.Needs = d.checkNeeds(fs, fields["needs"])
	if e := fields["if"]; e != nil && e.ok {
		f.If = e.v.(*Expr)
	}
	if !d.spend(fs.body, len(d.topEnv)) {
		return nil
	}
	f.Env = mergeEnv(d.topEnv, envOf(fields["env"]))
	f.Secrets = secrets
	if fs.body.get("secrets") != nil {
		f.Secrets = mergeSecrets(secrets, d.secrets(fields["secrets"]))
	}
	f.Expect = dur(fields["expect"], 0)
	f.Outputs = templates(fields["outputs"])
	d.checkOutputs(fields["outputs"])
	if c := fields["cache"]; c != nil && c.ok {
		if c.keys != nil {
			f.Cache = &Cache{Files: strs(c.get("files"))}
		} else if isTrue(c) {
			f.Cache = &Cache{}
		}
	}
	f.Concurrency = num(fields["concurrency"], 0)
	f.Retries = d.retriesOf(fields["retries"])
	f.Timeout = dur(fields["timeout"], 0)
	if m := fields["max_failures"]; m != nil && m.ok {
		f.MaxFailures = m.v.(Share)
	}
	f.OnFailureStop = str(fields["on_failure"], "") == "stop"
	f.Hardware = d.hardwareOf(fields["hardware"])
	f.Software = softwareOf(fields["software"])
	f.Files = Files{Include: strs(fields["files"].get("include")), Exclude: strs(fields["files"].get("exclude"))}
	f.Columns = fs.columns
	d.checkTimes(f, fields)
	if m := f.Map; m != nil && m.Form == FormFrom {
		m.Barrier = m.Sort != "" && m.Sort != "none" || m.Limit >= 0 || m.Batch != Batch{} || f.If != nil || fs.body.get("if") != nil ||
			fs.count || fs.results[m.From] || slices.Contains(f.Needs, m.From)
	}
	return f
}

// whatRuns reads run, command and python with the keys that go with them.
func (d *decoder) whatRuns(f *Function, fields map[string]*field) {
	if r := fields["run"]; r != nil && r.ok {
		var shell []string
		if sh := fields["shell"]; sh != nil {
			shell = strs(sh)
			if sh.oneOnly && len(shell) == 1 {
				shell = strings.Fields(shell[0])
			}
		}
		if sh := fields["shell"]; sh == nil || sh.ok {
			f.Run = d.compileScript(r.v.(*node), shell, r.path)
		}
	}
	if c := fields["command"]; c != nil {
		f.Command = valuesOf(c)
		if len(c.list) > 0 && c.list[0].ok && c.list[0].n.kind == scalarNode && c.list[0].n.text == "" {
			d.report(c.list[0].n.pos, c.list[0].path, "the program has no name")
		}
		for _, i := range pastedInto(f.Command) {
			d.report(f.Command[i].Pos, c.path.index(i), "a template cannot be used here: %s", inProgram)
		}
	}
	if py := fields["python"]; py != nil && py.ok {
		t := py.v.(pythonTarget)
		f.Python = &Python{Target: t.module + ":" + t.fn, Module: t.module, Func: t.fn, Bin: str(fields["python_bin"], "python3")}
		if a := fields["args"]; a != nil {
			f.Python.HasArgs, f.Python.Args = true, valuesOf(a)
		}
		if k := fields["kwargs"]; k != nil {
			if v, ok := k.v.(*Value); ok {
				f.Python.Kwargs = []NamedValue{{Value: v}}
			}
			for _, e := range k.dict {
				if v, ok := e.value.v.(*Value); ok && e.value.ok {
					f.Python.Kwargs = append(f.Python.Kwargs, NamedValue{Name: e.key.text, Value: v})
				}
			}
		}
	}
}

// checkTimes compares times with each other.
func (d *decoder) checkTimes(f *Function, fields map[string]*field) {
	if t := fields["timeout"]; t != nil && t.ok && f.Timeout > f.Hardware.MaxLife {
		d.report(t.n.pos, t.path, "the timeout of %s is longer than max_life, after which a machine ends whatever happens (%s): give hardware.max_life more",
			formatDuration(f.Timeout), formatDuration(f.Hardware.MaxLife))
	}
	r := fields["retries"]
	delay, most := r.get("delay"), r.get("max_delay")
	if delay != nil && most != nil && delay.ok && most.ok && f.Retries.Delay > f.Retries.MaxDelay {
		d.report(delay.n.pos, delay.path, "the first delay of %s is longer than max_delay (%s)", formatDuration(f.Retries.Delay), formatDuration(f.Retries.MaxDelay))
	}
}

func (d *decoder) retriesOf(f *field) Retries {
	r := Retries{Delay: time.Second, Backoff: "exponential", MaxDelay: time.Minute, Jitter: 0.1, Machine: 10, OOMMemory: 2}
	if f == nil {
		return r
	}
	if f.keys == nil {
		r.Max = num(f, 0)
		return r
	}
	r.Max = num(f.get("max"), 0)
	if own := f.get("when") != nil || f.get("delay") != nil || f.get("backoff") != nil; own && f.get("max") == nil && f.get("oom") == nil && f.get("machine") == nil {
		d.compiled(Problems{{Pos: f.n.pos, Message: "without max what failed is not tried again: add it, for example max: 3", Warning: true}}, f.path)
	}
	if w := f.get("when"); w != nil && w.ok {
		r.When = w.v.(*Expr)
	}
	r.Delay = dur(f.get("delay"), r.Delay)
	r.Backoff = str(f.get("backoff"), r.Backoff)
	// A first wait of five minutes means five minutes, not the default limit.
	r.MaxDelay = dur(f.get("max_delay"), max(r.MaxDelay, r.Delay))
	if j := f.get("jitter"); j != nil && j.ok {
		r.Jitter = j.v.(float64) / 100
	}
	r.Machine = num(f.get("machine"), r.Machine)
	if o := f.get("oom"); o != nil {
		r.OOMMax = num(o.get("max"), 0)
		if m := o.get("memory"); m != nil && m.ok {
			r.OOMMemory = m.v.(float64)
		}
	}
	return r
}

// mergeEnv adds variables to others; of the same name the later one counts.
func mergeEnv(base, more []EnvVar) []EnvVar {
	if len(more) == 0 {
		return base
	}
	own := make(map[string]bool, len(more))
	for _, v := range more {
		own[v.Name] = true
	}
	out := make([]EnvVar, 0, len(base)+len(more))
	for _, v := range base {
		if !own[v.Name] {
			out = append(out, v)
		}
	}
	return append(out, more...)
}

func templates(f *field) []*Template {
	if f == nil {
		return nil
	}
	var out []*Template
	for _, e := range f.list {
		if t, ok := e.v.(*Template); ok && e.ok {
			out = append(out, t)
		}
	}
	return out
}

func valuesOf(f *field) []*Value {
	var out []*Value
	if v, ok := f.v.(*Value); ok && v.Spread {
		return []*Value{v}
	}
	for _, e := range f.list {
		if v, ok := e.v.(*Value); ok && e.ok {
			out = append(out, v)
		}
	}
	return out
}
