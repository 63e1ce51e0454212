package engine

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coiled-jobs/coiled-jobs/agent"
	"github.com/coiled-jobs/coiled-jobs/bundle"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/hardware"
	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/software"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/value"
)

// cargo is what a run takes along from this computer. Gathering it finds what
// is wrong before the run exists; sending it is the slow part.
type cargo struct {
	quote    *Quote
	code     []*bundle.Manifest // of each kind of quote
	software []string           // the id of what each kind has to install
	// values are secrets and variables of env_file, by the name under which
	// they are kept for the run.
	values map[string]string
	// notify are secrets that only a detached coordinator needs, variable to
	// name in values.
	notify map[string]string
	// secrets are what machines look up themselves, by variable; kept those of
	// the caller's environment, and envFile the variables of env_file: variable
	// to name in values.
	secrets, kept, envFile map[string]string
	files                  map[string]bool // local file items, by path below dir
	folders                []string        // of outputs, that are there
	// expect is how many seconds a task takes, by function, by earlier runs.
	expect map[string]float64
	dir    string

	// Known when it was sent:
	keys  []string           // of the code of each kind
	index string             // of files: the key under which machines find them
	agent map[string]Program // by architecture
}

// gather finds out what a run takes along. items are those of its maps, by
// function, as far as they are known.
func (e *Engine) gather(ctx context.Context, h *executor.Header, p *spec.Pipeline, q *Quote, items map[string]planner.Items) (*cargo, error) {
	c := &cargo{quote: q, dir: h.Dir, agent: map[string]Program{}}
	if err := e.gatherSecrets(c, p, h); err != nil {
		return nil, err
	}
	var err error
	if c.files, err = e.localFiles(ctx, h, p, items); err != nil {
		return nil, err
	}
	c.folders = outputFolders(executor.Selected(p, h.Functions, h.Only), h.Dir)
	c.code, c.software = make([]*bundle.Manifest, len(q.Kinds)), make([]string, len(q.Kinds))
	err = together(len(q.Kinds), func(i int) (err error) {
		k := &q.Kinds[i]
		c.code[i], c.software[i], err = e.codeOf(ctx, h.Dir, p, k.kind, k.choices[0].Arch, c.files)
		return err
	})
	if err != nil {
		return nil, err
	}
	if text := leftOut(c.code); text != "" {
		e.say("%s", text)
	}
	return c, nil
}

// localFiles are the items that are files of this computer, by path below the
// folder of the file; of maps that are not known yet, those that they may have.
func (e *Engine) localFiles(ctx context.Context, h *executor.Header, p *spec.Pipeline, items map[string]planner.Items) (map[string]bool, error) {
	files := map[string]bool{}
	for _, it := range items {
		err := it.Each(0, it.Len(), func(_ int, item any) error {
			return value.EachLocal(item, func(path string) error {
				files[path] = true
				return nil
			})
		})
		if err != nil {
			return nil, err
		}
	}
	later, err := e.laterFiles(ctx, p, h)
	for _, path := range later {
		files[path] = true
	}
	return files, err
}

// codeOf finds the files that travel for a kind, and the id of what it installs;
// what that leaves to this computer is settled in k.
func (e *Engine) codeOf(ctx context.Context, dir string, p *spec.Pipeline, k *kind, arch string, items map[string]bool) (code *bundle.Manifest, id string, err error) {
	err = software.MatchPython(ctx, &k.Software, dir)
	var extra []string
	if err == nil {
		extra, err = software.Files(&k.Software, dir)
	}
	if err == nil {
		id, err = software.ID(&k.Software, dir, platformOf(arch))
	}
	if err != nil {
		return nil, "", usagef("software of %s: %v", k.Base, err)
	}
	code, err = e.scan(ctx, dir, p, k, extra, items)
	return code, id, err
}

// platformOf is an architecture of EC2 as Go calls it.
func platformOf(arch string) string {
	if arch == hardware.ARM64 {
		return "linux/arm64"
	}
	return "linux/amd64"
}

// scan finds the files that travel for a kind: those of files, the code that
// its functions name, and others that must be there.
func (e *Engine) scan(ctx context.Context, dir string, p *spec.Pipeline, k *kind, others []string, items map[string]bool) (*bundle.Manifest, error) {
	extra := map[string]bool{}
	for _, path := range others {
		extra[path] = true
	}
	for _, name := range k.Functions {
		_, files, err := agent.CodeOf(p.Function(name), dir)
		if err != nil {
			continue // the task will say what is the matter
		}
		for path := range files {
			extra[path] = true
		}
	}
	// What this program keeps does not travel where its folder is below, nor do
	// the variables of env_file: they are handed over like secrets.
	own := func(string) bool { return false }
	if rel, err := filepath.Rel(dir, e.StateDir); err == nil && filepath.IsLocal(rel) {
		prefix := filepath.ToSlash(rel) + "/"
		own = func(path string) bool { return strings.HasPrefix(path, prefix) }
	}
	o := bundle.Options{CacheDir: e.cacheDir(), Name: p.Name,
		Without: func(path string) bool { return items[path] || path == filepath.ToSlash(p.EnvFile) || own(path) }}
	var m *bundle.Manifest
	for i := len(k.Files) - 1; i >= 0; i-- { // what one function has, all have
		var err error
		m, err = bundle.Scan(ctx, dir, k.Files[i], slices.Sorted(maps.Keys(extra)), o)
		if err != nil {
			return nil, usagef("files beside the pipeline file: %v", err)
		}
		for _, f := range m.Entries {
			extra[f.Path] = true
		}
	}
	return m, nil
}

// cacheDir is where it is remembered what was read of files; "" is nowhere.
func (e *Engine) cacheDir() string {
	if e.StateDir == "" {
		return ""
	}
	return filepath.Join(e.StateDir, "cache")
}

// leftOut says which files were not sent because they look like secrets; "" if
// there are none.
func leftOut(code []*bundle.Manifest) string {
	seen := map[string]bool{}
	var names []string
	for _, m := range code {
		for _, l := range m.Left {
			if !seen[l.Path] {
				seen[l.Path] = true
				names = append(names, l.Path)
			}
		}
	}
	if len(names) == 0 {
		return ""
	}
	text := strings.Join(names[:min(5, len(names))], ", ")
	if n := len(names) - 5; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return fmt.Sprintf("left out, as they look like secrets: %s; name them in files.include to send them, or hand values over with secrets", text)
}

// say tells the caller something that belongs to no run.
func (e *Engine) say(format string, args ...any) {
	if e.Stderr != nil {
		fmt.Fprintf(e.Stderr, format+"\n", args...)
	}
}

// envFilePrefix tells variables of env_file from secrets of the same name, and
// notifyPrefix what tasks never see.
const (
	envFilePrefix = "env_file_"
	notifyPrefix  = "notify_"
)

// gatherSecrets finds the values that machines get by reference.
func (e *Engine) gatherSecrets(c *cargo, p *spec.Pipeline, h *executor.Header) error {
	fs := executor.Selected(p, h.Functions, h.Only)
	c.values, c.secrets, c.kept, c.envFile = map[string]string{}, map[string]string{}, map[string]string{}, map[string]string{}
	var here []*spec.Function
	for _, f := range fs {
		g := &spec.Function{}
		for _, s := range f.Secrets {
			if s.Ref == "" {
				g.Secrets = append(g.Secrets, s)
			} else {
				c.secrets[s.Name] = s.Ref
			}
		}
		here = append(here, g)
	}
	values, err := e.secrets(here)
	if err != nil {
		return err
	}
	for name, v := range values {
		c.values[name], c.kept[name] = v, name
	}
	c.notify = map[string]string{}
	for _, n := range p.Notify {
		if v := e.variable(n.Secret); n.Secret != "" && v != "" {
			c.values[notifyPrefix+n.Secret], c.notify[n.Secret] = v, notifyPrefix+n.Secret
		}
	}
	vars, err := envFileVars(p, h.Dir)
	if err != nil {
		return err
	}
	for _, kv := range vars {
		name, v, _ := strings.Cut(kv, "=")
		c.values[envFilePrefix+name], c.envFile[name] = v, envFilePrefix+name
	}
	return nil
}

// upload sends what does not belong to the run alone: code, files, program.
func (e *Engine) upload(ctx context.Context, c *cargo) error {
	archs := map[string]bool{}
	for _, k := range c.quote.Kinds {
		archs[k.choices[0].Arch] = true
	}
	names := slices.Sorted(maps.Keys(archs))
	programs := make([]Program, len(names))
	c.keys = make([]string, len(c.code))
	err := allOf(
		func() error {
			return together(len(names), func(i int) (err error) {
				programs[i], err = e.AWS.Publish(ctx, e.Store, names[i])
				return err
			})
		},
		func() error {
			return together(len(c.code), func(i int) error {
				for j := range i {
					if c.code[j].Hash == c.code[i].Hash {
						return nil // filled in below
					}
				}
				key, _, err := bundle.Push(ctx, e.Store, c.code[i])
				c.keys[i] = key
				return err
			})
		},
		func() (err error) {
			if len(c.files) == 0 {
				return nil
			}
			c.index, _, err = bundle.PushFiles(ctx, e.Store, c.dir, slices.Sorted(maps.Keys(c.files)), bundle.Options{CacheDir: e.cacheDir()})
			return err
		},
	)
	if err != nil {
		return err
	}
	for i, m := range c.code {
		c.keys[i] = m.Key()
	}
	for i, name := range names {
		c.agent[name] = programs[i]
	}
	return nil
}

// settle keeps the secrets of a run and records what its machines are made of.
func (e *Engine) settle(ctx context.Context, h *executor.Header, p *spec.Pipeline, c *cargo, noCache bool) (*fleetRecord, error) {
	rec := &fleetRecord{Region: c.quote.Kinds[0].Region, Agent: c.agent, Expect: c.expect}
	secrets, envFile, err := e.keepSecrets(ctx, h.Run, rec, c)
	if err != nil {
		return nil, err
	}
	for i := range c.quote.Kinds {
		k := &c.quote.Kinds[i]
		r := kindRecord{Base: k.kind.Base, Region: k.Region, Choices: k.choices}
		r.Setup.Code, r.Setup.Secrets, r.Setup.EnvFile, r.Setup.NoCache = c.keys[i], secrets, envFile, noCache
		r.Setup.Files, r.Setup.Folders, r.Setup.SoftwareID = c.index, c.folders, c.software[i]
		if c.software[i] != "" {
			r.Setup.Software = &k.kind.Software
		}
		rec.Kinds = append(rec.Kinds, r)
	}
	rec.settle(h, p, e.Store.URL())
	return rec, rec.save(ctx, e.Store, h.Run)
}

// keepSecrets gives the references of secrets and of env_file, by variable.
func (e *Engine) keepSecrets(ctx context.Context, run string, rec *fleetRecord, c *cargo) (secrets, envFile map[string]string, err error) {
	refs := map[string]string{}
	if len(c.values) > 0 {
		if refs, err = e.AWS.PutSecrets(ctx, rec.Region, run, e.Store.URL(), c.values); err != nil {
			return nil, nil, err
		}
	}
	named := func(of map[string]string) map[string]string {
		by := map[string]string{}
		for name, key := range of {
			by[name] = refs[key]
		}
		return by
	}
	secrets = named(c.kept)
	maps.Copy(secrets, c.secrets)
	rec.Notify = named(c.notify)
	return secrets, named(c.envFile), nil
}

// learnSecrets puts what a coordinator needs that has none of its caller's
// environment into its own.
func (e *Engine) learnSecrets(ctx context.Context, rec *fleetRecord) error {
	for name, ref := range rec.Notify {
		v, err := e.AWS.Secret(ctx, rec.Region, ref)
		if err != nil {
			return err
		}
		e.Environ = append(e.Environ, name+"="+v)
	}
	return nil
}
