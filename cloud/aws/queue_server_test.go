package aws

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
	"github.com/coiled-jobs/coiled-jobs/internal/motoserver"
)

// TestQueueServer runs queues on a real server. Its parts share it by way of
// the environment.
func TestQueueServer(t *testing.T) {
	motoserver.Start(t, motoserver.Options{}).Setenv(t)
	var n atomic.Int64
	open := func(t testing.TB, o QueueOptions) *Queue {
		t.Helper()
		q, err := OpenQueue(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := q.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
		return q
	}
	t.Run("conformance", func(t *testing.T) {
		cloudtest.TestQueueOf(t, 300, func(t testing.TB) cloud.Queue {
			return open(t, QueueOptions{Run: "taxi-20260101-000000-abcde", Kind: string(rune('a' + n.Add(1)))})
		})
	})
	t.Run("two processes", func(t *testing.T) {
		a := open(t, QueueOptions{Run: "two", Tags: map[string]string{"coiled-jobs:owner": "me"}})
		if b := open(t, QueueOptions{Run: "two"}); b.URL() != a.URL() {
			t.Errorf("opened again: %s and %s", a.URL(), b.URL())
		}
		b, err := JoinQueue(t.Context(), a.URL())
		if err != nil {
			t.Fatal(err)
		}
		open(t, QueueOptions{Run: "three"})
		for run, n := range map[string]int{"two": 1, "nobody": 0, "": 2} {
			list, err := ListQueues(t.Context(), "", run)
			if err != nil || len(list) != n || n == 1 && (list[0] != QueueInfo{URL: a.URL(), Name: "coiled-jobs-two", Run: "two"}) {
				t.Errorf("queues of %q: %v, %v", run, list, err)
			}
		}
		want := cloud.Range{Run: "two", Function: "f", From: 5, To: 9, Attempt: 2, Memory: 1 << 33}
		if err := a.Send(t.Context(), want); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		d, err := b.Receive(ctx)
		if err != nil || d.Range != want {
			t.Fatalf("received %+v, %v", d, err)
		}
		if err := b.Extend(t.Context(), d, time.Hour); err != nil {
			t.Errorf("extend: %v", err)
		}
		if err := b.Extend(t.Context(), d, 13*time.Hour); err != nil {
			t.Errorf("extend beyond the limit: %v", err)
		}
		if err := b.Return(t.Context(), d, 20*time.Hour); err != nil {
			t.Errorf("return beyond the limit: %v", err)
		}
		if err := b.Return(t.Context(), d, 0); err != nil {
			t.Errorf("return: %v", err)
		}
		if d, err = b.Receive(ctx); err != nil || d.Range != want {
			t.Fatalf("received %+v, %v", d, err)
		}
		b.Leave()
		if _, err := b.Receive(ctx); cloud.KindOf(err) != cloud.KindClosed {
			t.Errorf("receive after leaving: %v", err)
		}
		c, err := JoinQueue(t.Context(), a.URL())
		if err != nil {
			t.Fatal(err)
		}
		c.young = time.Time{} // it has been there for long
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Receive(ctx); cloud.KindOf(err) != cloud.KindClosed || !strings.Contains(err.Error(), "coiled-jobs-two") {
			t.Errorf("receive from a queue that another process closed: %v", err)
		}
		if err := c.Close(); err != nil {
			t.Errorf("close again: %v", err)
		}
	})
}
