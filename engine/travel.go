package engine

import (
	"context"
	"slices"

	"github.com/coiled-jobs/coiled-jobs/bundle"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/hardware"
	"github.com/coiled-jobs/coiled-jobs/software"
)

// Travel is what machines get of the folder of a pipeline file, beside items.
type Travel struct {
	Files int
	Bytes int64
	// LeftOut says, for people, what looks like secrets and stays; "" if nothing
	// does.
	LeftOut string
	// Software is what machines install, a line each, for people.
	Software []string
}

// Travel finds out what apply would send for a planned file. The error is the
// one with which apply would refuse it.
func (e *Engine) Travel(ctx context.Context, p *Planned, o ApplyOptions) (*Travel, error) {
	if p.Pipeline.Cloud != "aws" {
		return &Travel{}, nil
	}
	if err := checkItems(p); err != nil {
		return nil, err
	}
	h := &executor.Header{Dir: p.Dir, Functions: o.Functions, Only: o.Only}
	items := itemsOf(p)
	files, err := e.localFiles(ctx, h, p.Pipeline, items)
	if err != nil {
		return nil, err
	}
	kinds := kindsOf(executor.Selected(p.Pipeline, o.Functions, o.Only))
	code := make([]*bundle.Manifest, len(kinds))
	err = together(len(kinds), func(i int) (err error) {
		arch := hardware.AMD64
		if kinds[i].Hardware.ARM {
			arch = hardware.ARM64
		}
		code[i], _, err = e.codeOf(ctx, p.Dir, p.Pipeline, kinds[i], arch, files)
		return err
	})
	if err != nil {
		return nil, err
	}
	t := &Travel{LeftOut: leftOut(code)}
	for _, k := range kinds {
		lines, err := software.Describe(&k.Software, p.Dir)
		if err != nil {
			return nil, usagef("software of %s: %v", k.Base, err)
		}
		for _, line := range lines {
			if !slices.Contains(t.Software, line) {
				t.Software = append(t.Software, line)
			}
		}
	}
	seen := map[string]bool{}
	for _, m := range code {
		for i := range m.Entries {
			if f := &m.Entries[i]; !seen[f.Path] {
				seen[f.Path] = true
				t.Files++
				t.Bytes += f.Size
			}
		}
	}
	return t, nil
}
