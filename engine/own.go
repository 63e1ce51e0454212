package engine

import (
	"slices"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// OwnRegions is where the caller's own runs rented machines, as their pointers
// say.
func (e *Engine) OwnRegions() ([]string, error) {
	own, err := e.own()
	if err != nil {
		return nil, err
	}
	var regions []string
	for _, p := range own {
		if p.Region != "" && !slices.Contains(regions, p.Region) {
			regions = append(regions, p.Region)
		}
	}
	slices.Sort(regions)
	return regions, nil
}

// Owns says whether a run is one of the caller's own.
func (e *Engine) Owns(run string) (bool, error) {
	own, err := e.own()
	return slices.ContainsFunc(own, func(p pointer) bool { return p.Run == run }), err
}

// OwnStore opens the store of a run of the caller's; nil if the run is none.
func (e *Engine) OwnStore(run string) (cloud.Store, error) {
	own, err := e.own()
	if err != nil {
		return nil, err
	}
	for _, p := range own {
		if p.Run == run {
			return e.OpenStore(p.Store)
		}
	}
	return nil, nil
}
