package engine

import (
	"hash/maphash"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

// Outputs that earlier runs left beside the pipeline file are no code: a run
// that writes them anew would send its own results around, and machines would
// find other files from run to run. What a function reads of another one that
// does not run, or may be skipped, still travels.

// made is the declared outputs of some functions, as far as they are known
// before anything runs.
type made struct {
	fixed   map[string]bool
	perTask []*madePerTask
}

// madePerTask is an output whose path differs from task to task.
type madePerTask struct {
	prefix string // of all its paths
	paths  func() map[uint64]struct{}
	seed   maphash.Seed
}

// madeBy finds the outputs that each run of these functions writes. items are
// those of maps, by function, as far as they are known.
func madeBy(p *spec.Pipeline, h *executor.Header, items map[string]planner.Items) *made {
	m := &made{fixed: map[string]bool{}}
	skip := map[string]bool{}
	for _, f := range executor.Selected(p, h.Functions, h.Only) {
		it := items[f.Name]
		if h.Only[f.Name] != nil || f.Map != nil && it == nil || maySkip(p, f, skip) {
			continue
		}
		for _, t := range f.Outputs {
			r := t.Refs()
			if r.Env || len(r.EnvVars) > 0 || len(r.Needs) > 0 || r.Run {
				continue
			}
			env := spec.Env{Params: p.Params, Count: 1, HasItem: it != nil}
			if it != nil {
				env.Count = it.Len()
			}
			if it != nil && (r.Item || r.Index) {
				m.perTask = append(m.perTask, perTask(t, it, env))
				continue
			}
			if paths, err := t.Texts(&env); err == nil { // else the task says it
				for _, text := range paths {
					m.fixed[path.Clean(text)] = true
				}
			}
		}
	}
	return m
}

// maySkip says that a function, or one that it needs, may not run: what it
// wrote before may still be wanted. known is what was found out before.
func maySkip(p *spec.Pipeline, f *spec.Function, known map[string]bool) bool {
	skip, ok := known[f.Name]
	if !ok {
		skip = f.If != nil || slices.ContainsFunc(f.AllNeeds(), func(need string) bool { return maySkip(p, p.Function(need), known) })
		known[f.Name] = skip
	}
	return skip
}

// perTask renders the paths of all tasks when the first file turns up that may
// be one of them. A run may have a million: they are kept as hashes.
func perTask(t *spec.Template, it planner.Items, env spec.Env) *madePerTask {
	m := &madePerTask{prefix: literal(t), seed: maphash.MakeSeed()}
	m.paths = sync.OnceValue(func() map[uint64]struct{} {
		found := make(map[uint64]struct{}, it.Len())
		// What cannot be read or rendered is no reason to leave files out.
		_ = it.Each(0, it.Len(), func(i int, item any) error {
			env.Index, env.Item = planner.IndexOf(it, i), item
			paths, err := t.Texts(&env)
			if err != nil {
				return nil //nolint:nilerr // the task says it
			}
			for _, text := range paths {
				found[maphash.String(m.seed, path.Clean(text))] = struct{}{}
			}
			return nil
		})
		return found
	})
	return m
}

// literal is what a template begins with before its first expression, as a path
// in its shortest spelling.
func literal(t *spec.Template) string {
	text, _, _ := strings.Cut(t.Source, "${{")
	folder, name := path.Split(text)
	if folder = path.Clean(folder); folder == "." {
		return name
	}
	return folder + "/" + name
}

// has says whether a file is an output, or lies in a folder that is one.
func (m *made) has(file string) bool {
	for p := file; p != "." && p != "/"; p = path.Dir(p) {
		if m.fixed[p] {
			return true
		}
		for _, t := range m.perTask {
			if !strings.HasPrefix(p, t.prefix) {
				continue
			}
			if _, ok := t.paths()[maphash.String(t.seed, p)]; ok {
				return true
			}
		}
	}
	return false
}

// outputFolders are the folders that outputs of functions lie in and that are
// there: empty ones do not travel with the files, and a task that writes into
// one would find it here and not on a machine.
func outputFolders(fs []*spec.Function, dir string) []string {
	var list []string
	for _, f := range fs {
		for _, t := range f.Outputs {
			prefix := literal(t)
			d := path.Dir(prefix)
			if strings.HasSuffix(prefix, "/") {
				d = path.Clean(prefix)
			}
			if d == "." || slices.Contains(list, d) || !filepath.IsLocal(filepath.FromSlash(d)) {
				continue
			}
			if info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(d))); err == nil && info.IsDir() {
				list = append(list, d)
			}
		}
	}
	slices.Sort(list)
	return list
}
