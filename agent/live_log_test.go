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
