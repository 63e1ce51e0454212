package engine

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/value"
)

// Some maps over local files are expanded while the run goes on, since they
// depend on results of other functions. Which of the files they choose is not
// known at apply, and machines have only what was sent: so all that the patterns
// match is sent.

// localMaps calls see with each form, of a map that waits for results, that reads
// this computer's files, and with its pattern or path.
func localMaps(m *spec.Map, see func(form *spec.Map, t *spec.Template) error) error {
	for _, t := range append(append([]*spec.Template(nil), m.Glob...), m.Path) {
		// What begins with an expression may be on S3.
		if t == nil || strings.HasPrefix(t.Source, "s3://") || strings.HasPrefix(t.Source, "${{") && len(t.Refs().Needs) > 0 {
			continue
		}
		if err := see(m, t); err != nil {
			return err
		}
	}
	for _, part := range m.Parts {
		if err := localMaps(part.Map, see); err != nil {
			return err
		}
	}
	return nil
}

// laterMaps does so for the functions of a run.
func laterMaps(fs []*spec.Function, see func(f *spec.Function, form *spec.Map, t *spec.Template) error) error {
	for _, f := range fs {
		if f.Map == nil || !planner.Dynamic(f.Map) {
			continue
		}
		err := localMaps(f.Map, func(form *spec.Map, t *spec.Template) error { return see(f, form, t) })
		if err != nil {
			return err
		}
	}
	return nil
}

// checkLater refuses maps that a coordinator on another machine could not expand.
func checkLater(fs []*spec.Function) error {
	return laterMaps(fs, func(f *spec.Function, _ *spec.Map, t *spec.Template) error {
		return usagef("functions.%s.map: %s is looked up while the run goes on, and with --detach nothing of this machine's files is there then; "+
			"leave --detach out, put the files on S3, or let a function before give them as its result (`from:`)", f.Name, t.Source)
	})
}

// laterFiles is the local files that maps may choose while the run goes on, as
// paths below dir.
func (e *Engine) laterFiles(ctx context.Context, p *spec.Pipeline, h *executor.Header) ([]string, error) {
	env := &spec.Env{Params: p.Params, Run: h.Info()}
	vars, err := executor.PipelineEnv(p, env.Run)
	if err != nil {
		return nil, err
	}
	env.Env = vars
	var files []string
	err = laterMaps(executor.Selected(p, h.Functions, h.Only), func(f *spec.Function, form *spec.Map, t *spec.Template) error {
		if form.Form != spec.FormGlob {
			return nil // the coordinator reads it, machines need not
		}
		if len(t.Refs().Needs) > 0 {
			return usagef("functions.%s.map: which files %s matches is known only when the functions before have ended, and machines do not have them: "+
				"write a pattern without needs and choose with `where`, put the files on S3, or use `from:`", f.Name, t.Source)
		}
		if text, err := t.Text(env); err != nil || strings.HasPrefix(text, "s3://") {
			return err
		}
		all := *f
		all.Map = &spec.Map{Form: spec.FormGlob, Pos: form.Pos, Glob: []*spec.Template{t}, AllowEmpty: true, Limit: -1}
		items, err := planner.Expand(ctx, p, &all, e.inputs(h.Dir, env.Run), planner.Options{}, env)
		if err != nil {
			return err
		}
		return items.Each(0, items.Len(), func(_ int, item any) error {
			return value.EachLocal(item, func(path string) error {
				if !filepath.IsLocal(path) {
					return errNotBelow(f.Name, path)
				}
				files = append(files, path)
				return nil
			})
		})
	})
	return files, err
}

func errNotBelow(fn, path string) error {
	return usagef("functions.%s.map: machines do not have %s, which is not below the folder of the pipeline file; "+
		"put the file there, or on S3", fn, path)
}
