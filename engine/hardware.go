package engine

import (
	"context"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/hardware"
	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

// HardwareChoice is the machines that functions would run on.
type HardwareChoice struct {
	Functions []string
	Region    string
	DiskGB    int
	Catalogue *hardware.Catalogue
	Selection *hardware.Selection
}

// Hardware chooses machines for the functions of a file, whichever cloud it
// names, without looking at inputs.
func (e *Engine) Hardware(ctx context.Context, o ApplyOptions) (choices []HardwareChoice, warnings []string, err error) {
	p, _, err := e.load(o)
	if err != nil {
		return nil, nil, err
	}
	var r planner.Report
	kinds, err := e.priceKinds(ctx, p, executor.Selected(p, o.Functions, o.Only), &r)
	if err != nil {
		return nil, nil, err
	}
	for _, k := range kinds {
		choices = append(choices, HardwareChoice{Functions: k.Functions, Region: k.region, DiskGB: diskOf(k.Hardware, k.selection.Choices),
			Catalogue: k.catalogue, Selection: k.selection})
	}
	return choices, r.Warnings, nil
}

// HardwareFor chooses machines for hardware alone.
func (e *Engine) HardwareFor(ctx context.Context, h spec.Hardware) (HardwareChoice, error) {
	c := HardwareChoice{Region: h.Region}
	if c.Region == "" || c.Region == "auto" {
		c.Region = e.configuredRegion()
	}
	var err error
	if c.Catalogue, err = e.catalogue(ctx, c.Region); err != nil {
		return c, err
	}
	if c.Selection, err = hardware.Choose(hardware.RequestOf(h), c.Catalogue); err != nil {
		return c, usagef("%v", err)
	}
	c.DiskGB = diskOf(h, c.Selection.Choices)
	return c, nil
}

// configuredRegion is where machines are rented if nothing else says where.
func (e *Engine) configuredRegion() string {
	if e.AWS != nil && e.AWS.Region != "" {
		return e.AWS.Region
	}
	return "us-east-1"
}
