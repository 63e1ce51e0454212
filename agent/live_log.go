package agent

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/task"
)

const (
	// followEvery is how often a log is looked at, and written where stored
	// objects can grow.
	followEvery = 500 * time.Millisecond

	liveAfter = time.Second     // most tasks have ended by then
	liveEvery = 2 * time.Second // between two copies of a log
	liveRate  = 2 << 20         // bytes a second that copies take on average
	liveMax   = 64 << 20        // a longer log is seen whole only at its end
	// liveEnd bounds how long the end of an agent waits for copies.
	liveEnd = 5 * time.Second
)

// LogDelay is how old what a store shows of a running task's log is at most,
// beside the time of an upload, where stored objects cannot grow: what a
// function's interpreter prints is first fetched from it. Logs of many megabytes
// are shown more seldom.
const LogDelay = followEvery + liveEvery

// liveLog shows what a long task has printed so far where stored objects
// cannot grow: in a copy under a key of its own, written again when there is
// more. The copy is a hint: it may fail, and goes when the task has ended. It
// belongs to the goroutine of its pack; copies are made beside it, so that a
// slow store does not hold up the task.
type liveLog struct {
	store cloud.Store

	key   string
	shown int64         // bytes of the task's output that were copied
	due   time.Time     // not before this is there another copy
	busy  chan struct{} // closed when the copy under way is done; nil: none yet
	all   sync.WaitGroup
}

// begin starts the output of a task that will lie at s; it says where the copy
// will be.
func (l *liveLog) begin(s task.Span) task.Span {
	l.key = fmt.Sprintf("%s-live-%d", s.Key, s.Off)
	l.shown, l.busy, l.due = 0, nil, time.Now().Add(liveAfter)
	return task.Span{Key: l.key}
}

// wants says whether size bytes of output are worth another copy.
func (l *liveLog) wants(size int64) bool { return size > l.shown && size <= liveMax }

// show copies the first size bytes of a task's output, unless it is too early
// for another copy.
func (l *liveLog) show(ctx context.Context, now time.Time, r io.ReaderAt, from, size int64) {
	if now.Before(l.due) {
		return
	}
	l.due = now.Add(max(liveEvery, time.Duration(size)*time.Second/liveRate))
	if l.busy != nil {
		select {
		case <-l.busy:
		default:
			return // the store is slow
		}
	}
	l.shown = size
	done, key := make(chan struct{}), l.key
	l.busy = done
	l.all.Go(func() {
		defer close(done)
		// The file may be closed by now, the store may be away: the log itself
		// comes at the end.
		_ = l.store.PutFrom(ctx, key, io.NewSectionReader(r, from, size))
	})
}

// end removes the copy.
func (l *liveLog) end() {
	if l.busy == nil {
		return
	}
	done, key := l.busy, l.key
	l.busy = nil
	l.all.Go(func() {
		<-done
		_ = l.store.Delete(context.Background(), key) // else it goes with the run
	})
}

// close waits for what is under way, but not for long.
func (l *liveLog) close() {
	done := make(chan struct{})
	go func() {
		l.all.Wait()
		close(done)
	}()
	t := time.NewTimer(liveEnd)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
}
