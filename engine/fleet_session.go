package engine

import (
	"context"
	"errors"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

// fleetSession is the machines of a session.
type fleetSession struct{}

func (e *Engine) beginFleet(ctx context.Context, h *executor.Header, p *spec.Pipeline, begin executor.Begin, rec *fleetRecord) (*session, error) {
	return nil, errors.New("not yet")
}
