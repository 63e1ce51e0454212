package executor

import (
	"context"
	"fmt"

	"github.com/coiled-jobs/coiled-jobs/task"
)

// Outputs lists what succeeded tasks of a function (of one, if index >= 0)
// kept, as far as this coordinator did not see it come: what it did lies in
// place already.
func (c *Coordinator) Outputs(ctx context.Context, fn string, index int) ([]task.Output, error) {
	f := c.state.byName[fn]
	if f == nil {
		return nil, fmt.Errorf("no function %q in this run", fn)
	}
	if len(f.spec.Outputs) == 0 {
		return nil, nil
	}
	from, to := 0, len(f.table.pos)
	if index >= 0 {
		from, to = index, min(index+1, to)
	}
	var all []task.Output
	for i := from; i < to; i++ {
		p := f.table.pos[i]
		if rec, _ := splitPos(p); p < 0 || rec >= c.first || f.table.status[i] != task.Succeeded {
			continue
		}
		o, err := c.rd.outcome(ctx, p)
		if err != nil {
			return nil, err
		}
		all = append(all, o.Outputs...)
	}
	return all, nil
}
