package web

import (
	"encoding/json"

	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// gridDiff is how the grids became what they are in a version, as an event: by
// function the number of tasks and triples of start, length and state.
type gridDiff struct {
	version int
	event   []byte
}

// maxDiffs is how many versions a watcher may be behind before it is told to
// ask for the whole grid again.
const maxDiffs = 256

// cellOf is the state of a task in the grid, as one byte.
func cellOf(t executor.TaskReport, running bool) byte {
	switch {
	case running && !t.Status.Final():
		return 'r'
	case t.Status == task.Succeeded && t.Cached:
		return 'c'
	case t.Status == task.Succeeded:
		return 's'
	case t.Status == task.Failed:
		return 'f'
	case t.Status == task.Skipped:
		return 'k'
	case t.Status == task.Cancelled:
		return 'x'
	case t.Attempts > 0:
		return 'w' // waits for another attempt
	}
	return 'p'
}

func gridOf(v *executor.View, live map[int]task.Live, fn string) []byte {
	var cells []byte
	for t := range v.Tasks(fn) {
		running := false
		if len(live) > 0 {
			_, running = live[t.Index]
		}
		cells = append(cells, cellOf(t, running))
	}
	return cells
}

// grid is the cells of a function and the version they are of; false: there
// is no such function. From then on changes of it are among the diffs.
func (w *watched) grid(fn string) (cells *shown, version int, ok bool) {
	w.use.Lock()
	defer w.use.Unlock()
	for _, name := range w.view.Functions() {
		ok = ok || name == fn
	}
	if !ok {
		return nil, 0, false
	}
	cells, have := w.cells[fn]
	if !have {
		cells = &shown{body: gridOf(w.view, w.live[fn], fn)}
		w.cells[fn] = cells
	}
	_, _, version, _ = w.now()
	return cells, version, true
}

// functionDiff is what changed in the grid of a function.
type functionDiff struct {
	Tasks   int   `json:"n"`
	Changes []any `json:"d"` // start, length, state, start, ...
}

// regrid brings the grids up to date and tells what changed; nil: nothing.
func (w *watched) regrid() []byte {
	var all map[string]functionDiff
	for fn, old := range w.cells {
		cells := gridOf(w.view, w.live[fn], fn)
		d := functionDiff{Tasks: len(cells), Changes: diffCells(old.body, cells)}
		if len(d.Changes) == 0 && len(old.body) == len(cells) {
			continue
		}
		if all == nil {
			all = map[string]functionDiff{}
		}
		all[fn], w.cells[fn] = d, &shown{body: cells}
	}
	if all == nil {
		return nil
	}
	b, err := json.Marshal(all)
	if err != nil {
		return nil // it is numbers and letters
	}
	return b
}

// diffCells is the stretches that are not as they were, each of one state.
func diffCells(old, cells []byte) []any {
	d := []any{}
	for i := 0; i < len(cells); {
		if i < len(old) && old[i] == cells[i] {
			i++
			continue
		}
		from, state := i, cells[i]
		for i < len(cells) && cells[i] == state && (i >= len(old) || old[i] != state) {
			i++
		}
		d = append(d, from, i-from, string(state))
	}
	return d
}

// since is the changes of grids after a version; false: that is too long ago.
func (w *watched) since(version int) (list []gridDiff, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.diffs) > 0 && w.diffs[0].version > version+1 && len(w.diffs) >= maxDiffs/2 {
		return nil, false
	}
	for _, d := range w.diffs {
		if d.version > version {
			list = append(list, d)
		}
	}
	return list, true
}
