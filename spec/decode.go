package spec

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// decoder reads the tree of one document, once for Parse (no parameter has a
// value) and once for each Bind.
type decoder struct {
	reporter
	doc    *Document
	opts   BindOptions
	values bool // parameters have values

	defs       []Param
	params     map[string]any // those that have one
	paramTypes map[string]string
	env        map[string]string // the pipeline's, as far as it is known
	envNames   []string
	envLater   map[string]bool // names without a value yet; true: until there is a run
	topEnv     []EnvVar
	topScopes  [scopeRun + 1]*Scope

	functions []*funcScope
	byName    map[string]*funcScope
	names     []string // of functions
	mapped    map[string]bool
	fn        *funcScope // whose keys are read

	work int
}

// pipeline reads the whole file into p, as far as it makes sense.
func (d *decoder) pipeline(p *Pipeline) {
	p.Cloud, p.Retention, p.Limits.Unattended = "local", 30*24*time.Hour, 15*time.Minute
	root := d.doc.root
	if root.kind == badNode {
		return
	}
	top := &keyPath{}
	if root.kind != mappingNode {
		d.report(root.pos, top, "a pipeline is a mapping that starts with name: and functions:, found %s", root.found())
		return
	}
	known, _ := d.objectKeys(root, topKeys, top, root.pos)
	given := make(map[string]*node, len(known))
	for _, k := range known {
		given[k.def.name] = k.pair.value
	}
	// The order matters: parameters before env, both before all others.
	d.pipelineParams(p, given["params"], top.key("params"))
	d.pipelineEnv(p, given["env"], top.key("env"))

	fields := map[string]*field{}
	for _, k := range known {
		switch name := k.def.name; name {
		case "params", "env", "defaults", "functions":
		default:
			fields[name] = d.check(k.pair.value, k.def.shape, top.key(name))
		}
	}
	d.pipelineName(p, fields["name"])
	p.Description = str(fields["description"], "")
	p.Cloud = str(fields["cloud"], p.Cloud)
	if c := d.opts.Cloud; c != "" {
		if c != "local" && c != "aws" {
			d.report(Pos{File: d.doc.File}, nil, "--cloud %s: expected local or aws", c)
		}
		p.Cloud = c
	}
	p.EnvFile = str(fields["env_file"], "")
	p.Retention = dur(fields["retention"], p.Retention)
	if f := fields["retention"]; f != nil && f.ok && p.Retention <= 0 {
		d.report(f.n.pos, f.path, "expected a duration longer than 0, such as 30d")
	}
	p.Limits = limitsOf(fields["limits"], p.Limits)
	p.Schedules = d.schedules(fields["schedule"])
	secrets := d.secrets(fields["secrets"])
	p.Notify = d.notifyOf(fields["notify"], secrets)
	d.pipelineFunctions(p, given, secrets, top)
}

func (d *decoder) pipelineName(p *Pipeline, f *field) {
	p.Name = str(f, "")
	if f == nil || !f.ok || isPipelineName(p.Name) {
		return
	}
	fixed := strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, p.Name), "-")
	advice := ""
	if len(p.Name) > 63 {
		advice = ", at most 63 characters"
	} else if isPipelineName(fixed) {
		advice = fmt.Sprintf(": write %q", fixed)
	}
	d.report(f.n.pos, f.path, "%q is no name for a pipeline: a-z, 0-9 and -, not first%s", shorten(p.Name), advice)
}

// pipelineEnv reads env at the top and evaluates what does not need the run.
func (d *decoder) pipelineEnv(p *Pipeline, n *node, at *keyPath) {
	d.env, d.envLater, d.envNames = map[string]string{}, map[string]bool{}, []string{}
	if n == nil {
		return
	}
	f := d.check(n, topKeys.find("env").shape, at)
	d.topEnv = envOf(f)
	p.Env = d.topEnv
	for _, e := range f.dict {
		d.envNames = append(d.envNames, e.key.text)
		d.envLater[e.key.text] = false
	}
	for _, v := range d.topEnv {
		if v.Value.Refs().Run {
			d.envLater[v.Name] = true
			continue
		}
		if !d.paramsKnown(v.Value.Refs()) {
			continue
		}
		text, err := v.Value.Text(&Env{Params: d.params})
		if err != nil {
			d.report(v.Value.Pos, at.key(v.Name), "%s", err)
			continue
		}
		d.env[v.Name] = text
		delete(d.envLater, v.Name)
	}
}

func (d *decoder) paramsKnown(r Refs) bool {
	for _, name := range r.Params {
		if _, known := d.params[name]; !known {
			return false
		}
	}
	return true
}

// envOf is the variables of a checked env that have no problem.
func envOf(f *field) []EnvVar {
	if f == nil {
		return nil
	}
	var vars []EnvVar
	for _, e := range f.dict {
		if v, ok := e.value.v.(*Value); ok && e.value.ok {
			vars = append(vars, EnvVar{Name: e.key.text, Value: v})
		}
	}
	return vars
}

// secrets reads a list of secrets.
func (d *decoder) secrets(f *field) []Secret {
	if f == nil {
		return nil
	}
	var out []Secret
	for _, e := range f.list {
		s := Secret{Pos: e.n.pos}
		if e.n.kind == mappingNode {
			if len(e.dict) != 1 {
				d.report(e.n.pos, e.path, "expected one name with its place such as {PASSWORD: ssm:/prod/password}, found %d: one entry of the list each", len(e.dict))
				continue
			}
			s.Name, s.Ref = e.dict[0].key.text, str(e.dict[0].value, "")
			_, name, ok := strings.Cut(s.Ref, ":")
			if e.ok && (!ok || name == "" || !strings.HasPrefix(s.Ref, "ssm:") && !strings.HasPrefix(s.Ref, "secretsmanager:")) {
				d.report(e.dict[0].value.n.pos, e.path.key(s.Name), "expected ssm:name or secretsmanager:name, found %s", shorten(s.Ref))
				continue
			}
		} else {
			s.Name = str(e, "")
		}
		if !e.ok {
			continue
		}
		if name, value, ok := strings.Cut(s.Name, "="); ok && isIdentifier(name) && value != "" {
			d.report(e.n.pos, e.path, "a secret has no value in the file: write %s and set the variable where coiled-jobs is called", name)
			continue
		}
		if !d.checkName(&node{kind: scalarNode, text: s.Name, pos: s.Pos}, nameEnv, e.path) {
			continue
		}
		if slices.ContainsFunc(out, func(o Secret) bool { return o.Name == s.Name }) {
			d.report(s.Pos, e.path, "the secret %s is listed twice", s.Name)
			continue
		}
		out = append(out, s)
	}
	return out
}

// mergeSecrets adds secrets to others; of the same name the later one counts.
func mergeSecrets(base, more []Secret) []Secret {
	out := slices.Clone(base)
	for _, s := range more {
		out = slices.DeleteFunc(out, func(o Secret) bool { return o.Name == s.Name })
		out = append(out, s)
	}
	return out
}

func limitsOf(f *field, l Limits) Limits {
	if c := f.get("cost"); c != nil && c.ok {
		cost := c.v.(costValue)
		l.NoCost, l.HasCost, l.Cost = cost.none, !cost.none, cost.dollars
	}
	l.Duration = dur(f.get("duration"), l.Duration)
	l.Machines = num(f.get("machines"), 0)
	l.VCPUs = num(f.get("vcpus"), 0)
	l.Unattended = dur(f.get("unattended"), l.Unattended)
	return l
}

func (d *decoder) notifyOf(f *field, secrets []Secret) []Notify {
	if f == nil {
		return nil
	}
	var out []Notify
	for _, e := range f.list {
		n := Notify{On: strs(e.get("on")), Format: str(e.get("format"), "json")}
		if len(n.On) == 0 {
			n.On = []string{"failure"}
		}
		if w := e.get("webhook"); w != nil && w.ok {
			n.Webhook = w.v.(*Template)
			d.checkWebhook(&n, w, secrets)
		}
		out = append(out, n)
	}
	return out
}

// checkWebhook reports an address that cannot be right, and finds the secret
// that holds it if it names one.
func (d *decoder) checkWebhook(n *Notify, f *field, secrets []Secret) {
	text, static := n.Webhook.Static()
	if !static || text == "" {
		return
	}
	for _, s := range secrets {
		if s.Name == text {
			n.Secret = text
			return
		}
	}
	if u, err := url.Parse(text); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		d.report(f.n.pos, f.path, "%q is no address: expected a URL such as https://example.com/hook, or the name of one of the secrets at the top of the file", shorten(text))
	}
}

func (d *decoder) schedules(f *field) []Schedule {
	if f == nil {
		return nil
	}
	var out []Schedule
	for _, e := range f.list {
		s := Schedule{
			Pos: e.n.pos, Cron: str(e.get("cron"), ""), Timezone: str(e.get("timezone"), "UTC"),
			Overlap: str(e.get("overlap"), "skip"), Catchup: str(e.get("catchup"), "latest"),
			Deadline: dur(e.get("deadline"), 0), Jitter: dur(e.get("jitter"), 0), Paused: isTrue(e.get("paused")),
		}
		if c := e.get("cron"); c != nil && c.ok {
			d.checkCron(c, s.Cron)
		}
		if tz := e.get("timezone"); tz != nil && tz.ok {
			// "Local" would mean another zone on every machine.
			if _, err := time.LoadLocation(s.Timezone); err != nil || s.Timezone == "Local" {
				d.report(tz.n.pos, tz.path, "unknown time zone %q: expected a name such as Europe/Berlin or UTC", shorten(s.Timezone))
			}
		}
		if ps := e.get("params"); ps != nil {
			s.Params = d.scheduleParams(ps)
		}
		out = append(out, s)
	}
	return out
}

func (d *decoder) scheduleParams(f *field) map[string]string {
	params := map[string]string{}
	for _, e := range f.dict {
		name := e.key.text
		if !e.value.ok {
			continue
		}
		params[name] = e.value.v.(string)
		def := d.paramDef(name)
		if def == nil {
			d.report(e.key.pos, f.path, "no parameter %q%s", shorten(name), d.suggest(name, d.paramNames()))
			continue
		}
		if _, why := def.parse(params[name]); why != "" {
			d.report(e.value.n.pos, e.value.path, "%s", why)
		}
	}
	return params
}

func (d *decoder) checkCron(f *field, text string) {
	if strings.HasPrefix(text, "TZ=") || strings.HasPrefix(text, "CRON_TZ=") {
		d.report(f.n.pos, f.path, "a time zone does not stand in cron: use the key timezone beside it")
		return
	}
	sched, err := cron.ParseStandard(text)
	if err != nil {
		why := strings.TrimPrefix(err.Error(), "failed to parse int from ")
		if n := len(strings.Fields(text)); n != 5 && !strings.HasPrefix(text, "@") {
			why = fmt.Sprintf("it has %d fields", n)
		}
		d.report(f.n.pos, f.path, "%q is no schedule (%s): expected five fields (minute hour day month weekday) such as \"0 2 * * *\", or @hourly, @daily, @weekly, @monthly", shorten(text), why)
		return
	}
	// Any start will do: no day is further away than the next leap year.
	if sched.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		d.report(f.n.pos, f.path, "%q never happens", shorten(text))
	}
}

// The values of checked fields, with what holds if they are not there.

func str(f *field, absent string) string {
	if f != nil && f.ok {
		if s, ok := f.v.(string); ok {
			return s
		}
	}
	return absent
}

func num(f *field, absent int) int {
	if f != nil && f.ok {
		if i, ok := f.v.(int); ok {
			return i
		}
	}
	return absent
}

func isTrue(f *field) bool {
	if f != nil && f.ok {
		b, _ := f.v.(bool)
		return b
	}
	return false
}

func dur(f *field, absent time.Duration) time.Duration {
	if f != nil && f.ok {
		if t, ok := f.v.(time.Duration); ok {
			return t
		}
	}
	return absent
}

func size(f *field, absent int64) int64 {
	if f != nil && f.ok {
		if n, ok := f.v.(int64); ok {
			return n
		}
	}
	return absent
}

func strs(f *field) []string {
	if f == nil {
		return nil
	}
	var out []string
	for _, e := range f.list {
		if s, ok := e.v.(string); ok && e.ok {
			out = append(out, s)
		}
	}
	return out
}
