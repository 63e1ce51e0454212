package executor

import (
	"context"
	"errors"
	"io"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// logPage is how much Log returns at a time.
const logPage = 1 << 20

// Log is output of an attempt of a task (0: the last one, or the one that
// runs) from byte off on, at most a page of it. done says that the attempt
// has ended and nothing follows what was returned.
func (v *View) Log(ctx context.Context, fn string, index, attempt int, off int64) (data []byte, done bool, err error) {
	var live []task.Live
	if !v.state.status.Final() {
		if live, err = v.Live(ctx); err != nil {
			return nil, false, err
		}
	}
	for _, l := range live {
		if l.Function == fn && l.Index == index && (attempt == 0 || attempt == l.Attempt) {
			if l.Log.Key == "" {
				return nil, false, nil
			}
			data, err := v.readLog(ctx, l.Log.Key, l.Log.Off+off, logPage)
			return data, false, err
		}
	}
	o, err := v.attempt(ctx, fn, index, attempt)
	if err != nil {
		return nil, false, err
	}
	if o == nil {
		t, _ := v.Task(fn, index)
		return nil, t.Status.Final(), nil
	}
	left := o.Log.Len - off
	if left <= 0 {
		return nil, true, nil
	}
	data, err = v.readLog(ctx, o.Log.Key, o.Log.Off+off, min(left, logPage))
	return data, err == nil && int64(len(data)) >= left, err
}

// attempt is an attempt of a task (0: the last); of an earlier one only what
// its log needs; nil if there is none.
func (v *View) attempt(ctx context.Context, fn string, index, attempt int) (*task.Outcome, error) {
	if attempt == 0 {
		t, ok := v.Task(fn, index)
		if !ok {
			return nil, nil
		}
		return v.Outcome(ctx, fn, t)
	}
	if t, ok := v.Task(fn, index); ok && t.Attempts == attempt {
		return v.Outcome(ctx, fn, t)
	}
	if v.earlier == nil || v.known != v.next {
		v.earlier, v.known = map[attemptOf]*task.Outcome{}, v.next
		err := v.Outcomes(ctx, func(name string, o *task.Outcome) bool {
			if t, ok := v.Task(name, o.Index); ok && o.Attempt < t.Attempts {
				v.earlier[attemptOf{name, o.Index, o.Attempt}] = &task.Outcome{Index: o.Index, Status: o.Status, Cause: o.Cause,
					Attempt: o.Attempt, Log: o.Log}
			}
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	return v.earlier[attemptOf{fn, index, attempt}], nil
}

func (v *View) readLog(ctx context.Context, key string, off, n int64) ([]byte, error) {
	// Most logs are short, and who follows one gets a few lines at a time.
	b := make([]byte, min(n, 16<<10))
	got, err := v.store.ReadAt(ctx, key, b, off)
	if got == len(b) && int64(got) < n {
		b = make([]byte, n)
		got, err = v.store.ReadAt(ctx, key, b, off)
	}
	if errors.Is(err, io.EOF) || cloud.KindOf(err) == cloud.KindNotFound {
		err = nil
	}
	return b[:got], err
}
