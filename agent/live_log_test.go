//go:build unix

package agent

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// What a task prints can be read while it runs, also where stored objects
// cannot grow; the log itself is whole, and nothing else is left.
func TestLiveLogInAPlainStore(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	store := cloudtest.NewStore()
	p := newPack(store, "logs/a", t.TempDir())
	now := time.Now()
	p.begin()
	p.write([]byte("of an earlier task\n"))
	p.end()
	span := p.begin()
	seen := func(after time.Duration) string {
		t.Helper()
		if p.unseen() {
			p.show(ctx, now.Add(after))
		}
		if p.copy.busy != nil {
			<-p.copy.busy
		}
		b, err := store.Get(ctx, span.Key)
		if cloud.KindOf(err) == cloud.KindNotFound {
			return ""
		}
		if err != nil {
			t.Fatal(err)
		}
		return string(b[span.Off:])
	}
	steps := []struct {
		write string
		after time.Duration
		want  string
	}{
		{"one\n", 0, ""}, // too early
		{"", liveAfter + time.Second, "one\n"},
		{"two\n", liveAfter + time.Second + liveEvery/2, "one\n"}, // too early again
		{"three\n", liveAfter + time.Second + 2*liveEvery, "one\ntwo\nthree\n"},
		{strings.Repeat("x", packBuffer+5), liveAfter + time.Second + 4*liveEvery, "one\ntwo\nthree\n" + strings.Repeat("x", packBuffer+5)},
	}
	for i, s := range steps {
		p.write([]byte(s.write))
		if i == 2 { // the end of the earlier task is reported
			if err := p.flush(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if got := seen(s.after); got != s.want {
			t.Errorf("step %d shows %.40q, want %.40q", i, got, s.want)
		}
	}
	log := p.end()
	if err := p.close(ctx); err != nil {
		t.Fatal(err)
	}
	whole, err := store.Get(ctx, log.Key)
	if err != nil || !bytes.Equal(whole[log.Off:log.Off+log.Len], []byte(steps[4].want)) {
		t.Errorf("the log is %.40q, %v", whole, err)
	}
	var left []string
	if err := store.List(ctx, "", func(o cloud.ObjectInfo) bool { left = append(left, o.Key); return true }); err != nil {
		t.Fatal(err)
	}
	if len(left) != 2 {
		t.Errorf("the store has %q", left)
	}
}

// Every line that a task prints is in the store within LogDelay and the time of
// an upload, also when the log has grown to megabytes.
func TestLogDelay(t *testing.T) {
	t.Parallel()
	const upload = 100 * time.Millisecond
	for name, c := range map[string]struct {
		every time.Duration // so often something printed arrives
		bytes int           // of a line
	}{
		"a process":              {100 * time.Millisecond, 16},
		"an interpreter":         {followEvery, 16},
		"one that says a lot":    {100 * time.Millisecond, 8 << 10},
		"one that rarely prints": {7 * time.Second, 16},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				store := cloudtest.NewStore()
				s := &slot{pack: newPack(&uploads{store, upload}, "logs/a", dir)}
				span := s.pack.begin()
				start := time.Now()
				var printed []time.Time // when each line was
				seen, worst := 0, time.Duration(0)
				look := func() {
					size := 0
					if err := store.List(ctx, span.Key, func(o cloud.ObjectInfo) bool { size = int(o.Size); return false }); err != nil {
						t.Fatal(err)
					}
					for ; seen < size/c.bytes; seen++ {
						worst = max(worst, time.Since(printed[seen]))
					}
				}
				next := start
				s.logDue = start.Add(followEvery)
				for time.Since(start) < time.Minute {
					now := time.Now()
					if !now.Before(next) {
						// It was printed just after the last look at it.
						printed = append(printed, now.Add(-min(c.every, followEvery)))
						s.pack.write(append(bytes.Repeat([]byte("x"), c.bytes-1), '\n'))
						next = now.Add(c.every)
					}
					s.tick(ctx, now)
					until := next
					if due := s.due(); !due.IsZero() {
						until = earliest(until, due)
					}
					until = earliest(until, now.Add(10*time.Millisecond)) // a reader who does not rest
					time.Sleep(max(time.Until(until), time.Millisecond))
					look()
				}
				if limit := LogDelay + upload + 50*time.Millisecond; worst > limit {
					t.Errorf("a line was seen after %v, want at most %v", worst, limit)
				}
				if n := len(printed); seen < n-int(LogDelay/c.every)-2 {
					t.Errorf("%d of %d lines were seen", seen, n)
				}
				s.pack.end()
				if err := s.pack.close(ctx); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// uploads is a store that takes its time.
type uploads struct {
	cloud.Store
	takes time.Duration
}

func (s *uploads) PutFrom(ctx context.Context, key string, r io.Reader) error {
	time.Sleep(s.takes)
	return s.Store.PutFrom(ctx, key, r)
}

// A store that is slow or away holds up no task.
func TestLiveLogOfASlowStore(t *testing.T) {
	t.Parallel()
	blocked := make(chan struct{})
	store := &blockedStore{Store: cloudtest.NewStore(), until: blocked}
	l := &liveLog{store: store}
	l.begin(task.Span{Key: "k"})
	file, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	at := l.due
	for range 5 {
		l.show(t.Context(), at, file, 0, 1)
		at = at.Add(time.Hour)
	}
	if n := store.puts.Load(); n > 1 {
		t.Errorf("%d copies at a time", n)
	}
	close(blocked)
	l.end()
	l.close()
	if n := store.puts.Load(); n != 1 {
		t.Errorf("%d copies", n)
	}
}

// blockedStore takes objects only from some time on.
type blockedStore struct {
	cloud.Store
	until chan struct{}
	puts  atomic.Int32
}

func (s *blockedStore) PutFrom(ctx context.Context, key string, r io.Reader) error {
	s.puts.Add(1)
	<-s.until
	return s.Store.PutFrom(ctx, key, r)
}
