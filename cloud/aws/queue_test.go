package aws

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/cloudtest"
)

// fakeSQS puts SQS's face on a queue in memory. A poll takes what it finds even
// if the client has gone: that is what SQS may do.
type fakeSQS struct {
	queue *cloudtest.Queue
	// made is when the queue was made; for late after it SQS does not know it.
	late time.Duration
	// fail may fail an operation; n counts its calls from 1.
	fail func(op string, n int) error
	// refuse may refuse an entry of a batch; n counts entries from 1.
	refuse func(n int) *types.BatchResultErrorEntry

	mu      sync.Mutex
	made    time.Time
	created int
	counts  map[string]int
	entries int
	gone    bool
}

func (f *fakeSQS) begin(op string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.counts == nil {
		f.counts = map[string]int{}
	}
	f.counts[op]++
	if f.gone || op != "create" && time.Since(f.made) < f.late {
		return &types.QueueDoesNotExist{Message: aws.String("The specified queue does not exist.")}
	}
	if f.fail != nil {
		return f.fail(op, f.counts[op])
	}
	return nil
}

func (f *fakeSQS) CreateQueue(_ context.Context, in *sqs.CreateQueueInput, _ ...func(*sqs.Options)) (*sqs.CreateQueueOutput, error) {
	if err := f.begin("create"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.created, f.made = f.created+1, time.Now()
	return &sqs.CreateQueueOutput{QueueUrl: aws.String("https://sqs.eu-north-1.amazonaws.com/123456789012/" + *in.QueueName)}, nil
}

func (f *fakeSQS) DeleteQueue(context.Context, *sqs.DeleteQueueInput, ...func(*sqs.Options)) (*sqs.DeleteQueueOutput, error) {
	if err := f.begin("delete"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone = true
	return &sqs.DeleteQueueOutput{}, f.queue.Close()
}

func (f *fakeSQS) SendMessageBatch(ctx context.Context, in *sqs.SendMessageBatchInput, _ ...func(*sqs.Options)) (*sqs.SendMessageBatchOutput, error) {
	if err := f.begin("send"); err != nil {
		return nil, err
	}
	if len(in.Entries) > 10 || len(in.Entries) == 0 {
		return nil, &types.TooManyEntriesInBatchRequest{}
	}
	out := &sqs.SendMessageBatchOutput{}
	for _, e := range in.Entries {
		f.mu.Lock()
		f.entries++
		n := f.entries
		f.mu.Unlock()
		if f.refuse != nil {
			if r := f.refuse(n); r != nil {
				r.Id = e.Id
				out.Failed = append(out.Failed, *r)
				continue
			}
		}
		var r cloud.Range
		if err := json.Unmarshal([]byte(*e.MessageBody), &r); err != nil || strings.ContainsAny(*e.MessageBody, " \n") {
			return nil, fmt.Errorf("body %s: %w", *e.MessageBody, err)
		}
		if err := f.queue.Send(ctx, r); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (f *fakeSQS) ReceiveMessage(ctx context.Context, in *sqs.ReceiveMessageInput, _ ...func(*sqs.Options)) (*sqs.ReceiveMessageOutput, error) {
	if err := f.begin("receive"); err != nil {
		return nil, err
	}
	poll, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Duration(in.WaitTimeSeconds)*time.Second)
	type answer struct {
		out *sqs.ReceiveMessageOutput
		err error
	}
	done := make(chan answer, 1)
	go func() {
		defer cancel()
		d, err := f.queue.Receive(poll)
		switch {
		case cloud.KindOf(err) == cloud.KindClosed:
			err = &types.QueueDoesNotExist{}
		case errors.Is(err, context.DeadlineExceeded):
			done <- answer{&sqs.ReceiveMessageOutput{}, nil}
			return
		}
		if err != nil {
			done <- answer{nil, err}
			return
		}
		body := wire(d.Range)
		if d.Run == "" {
			body = "hello"
		}
		done <- answer{&sqs.ReceiveMessageOutput{Messages: []types.Message{{Body: &body, ReceiptHandle: &d.Receipt}}}, nil}
	}()
	select {
	case a := <-done:
		return a.out, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (f *fakeSQS) DeleteMessage(ctx context.Context, in *sqs.DeleteMessageInput, _ ...func(*sqs.Options)) (*sqs.DeleteMessageOutput, error) {
	if err := f.begin("done"); err != nil {
		return nil, err
	}
	return &sqs.DeleteMessageOutput{}, f.queue.Done(ctx, cloud.Delivery{Receipt: *in.ReceiptHandle})
}

func (f *fakeSQS) ChangeMessageVisibility(ctx context.Context, in *sqs.ChangeMessageVisibilityInput, _ ...func(*sqs.Options)) (*sqs.ChangeMessageVisibilityOutput, error) {
	if err := f.begin("hide"); err != nil {
		return nil, err
	}
	if in.VisibilityTimeout < 0 || in.VisibilityTimeout > 43200 {
		return nil, fmt.Errorf("hidden for %d s", in.VisibilityTimeout)
	}
	return &sqs.ChangeMessageVisibilityOutput{}, f.queue.Return(ctx, cloud.Delivery{Receipt: *in.ReceiptHandle}, time.Duration(in.VisibilityTimeout)*time.Second)
}

func mustOpen(t *testing.T, f *fakeSQS) *Queue {
	t.Helper()
	if f.queue == nil {
		f.queue = cloudtest.NewQueue()
	}
	q, err := openQueue(t.Context(), f, QueueOptions{Run: "r"})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestQueueConformance(t *testing.T) {
	t.Parallel()
	cloudtest.TestQueueOf(t, 300, func(t testing.TB) cloud.Queue {
		q, err := openQueue(t.Context(), &fakeSQS{queue: cloudtest.NewQueue()}, QueueOptions{Run: "r"})
		if err != nil {
			t.Fatal(err)
		}
		return q
	})
}

func TestQueueNames(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("pipeline-", 10) + "20260101-000000-abcde"
	names := map[string]bool{}
	for _, tt := range [][2]string{{"taxi-20260101-000000-abcde", ""}, {"taxi-20260101-000000-abcde", "big"}, {long, ""}, {long, "a"}, {long, "b"}, {"é/x", ""}, {"è/x", ""}} {
		name := queueName(tt[0], tt[1])
		if len(name) > 80 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" || !strings.HasPrefix(name, "coiled-jobs-") || names[name] {
			t.Errorf("%q: %q", tt, name)
		}
		names[name] = true
	}
	if !names["coiled-jobs-taxi-20260101-000000-abcde"] || !names["coiled-jobs-taxi-20260101-000000-abcde-big"] {
		t.Errorf("names: %v", names)
	}
}

func ranges(n int) []cloud.Range {
	var list []cloud.Range
	for i := range n {
		list = append(list, cloud.Range{Run: "r", Function: "f", From: 10 * i, To: 10*i + 10, Attempt: 1})
	}
	return list
}

// Trouble that time heals, in virtual time.
func TestQueueTrouble(t *testing.T) {
	t.Parallel()
	throttled := &types.RequestThrottled{Message: aws.String("slow down")}
	first := func(op string, times int, err error) func(string, int) error {
		return func(o string, n int) error {
			if o == op && n <= times {
				return err
			}
			return nil
		}
	}
	for name, f := range map[string]*fakeSQS{
		"none":            {},
		"not known yet":   {late: 3 * time.Second},
		"deleted lately":  {fail: first("create", 3, &types.QueueDeletedRecently{})},
		"broken create":   {fail: first("create", 2, io.ErrUnexpectedEOF)},
		"throttled send":  {fail: first("send", 3, throttled)},
		"broken polls":    {fail: first("receive", 50, io.ErrUnexpectedEOF)},
		"over limit":      {fail: first("receive", 5, &types.OverLimit{})},
		"throttled done":  {fail: first("done", 3, throttled)},
		"invalid receipt": {fail: first("done", 1, &types.ReceiptHandleIsInvalid{})},
		"refused entries": {refuse: func(n int) *types.BatchResultErrorEntry {
			if n%3 == 0 && n < 50 {
				return &types.BatchResultErrorEntry{Code: aws.String("InternalError"), Message: aws.String("try again")}
			}
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				q := mustOpen(t, f)
				if err := q.Send(t.Context(), ranges(25)...); err != nil {
					t.Fatal(err)
				}
				got := map[int]bool{}
				for range 25 {
					d, err := q.Receive(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					got[d.From] = true
					if err := q.Done(t.Context(), d); err != nil {
						t.Fatal(err)
					}
				}
				if len(got) != 25 {
					t.Errorf("%d ranges came", len(got))
				}
				if err := q.Close(); err != nil || !f.gone {
					t.Errorf("close: %v", err)
				}
			})
		})
	}
}

// Trouble that needs somebody.
func TestQueueRefused(t *testing.T) {
	t.Parallel()
	always := func(op string, err error) *fakeSQS {
		return &fakeSQS{fail: func(o string, _ int) error {
			if o == op {
				return err
			}
			return nil
		}}
	}
	denied := apiErr("AccessDenied", "Access to the resource is denied.")
	for name, tt := range map[string]struct {
		f    *fakeSQS
		do   func(context.Context, *Queue) error
		kind cloud.Kind
		text string
	}{
		"send":    {always("send", denied), func(ctx context.Context, q *Queue) error { return q.Send(ctx, ranges(30)...) }, cloud.KindDenied, "sqs:SendMessage"},
		"receive": {always("receive", denied), func(ctx context.Context, q *Queue) error { _, err := q.Receive(ctx); return err }, cloud.KindDenied, "sqs:ReceiveMessage"},
		"close":   {always("delete", denied), func(_ context.Context, q *Queue) error { return q.Close() }, cloud.KindDenied, "sqs:DeleteQueue"},
		"entry": {&fakeSQS{refuse: func(int) *types.BatchResultErrorEntry {
			return &types.BatchResultErrorEntry{Code: aws.String("InvalidMessageContents"), Message: aws.String("Bad"), SenderFault: true}
		}}, func(ctx context.Context, q *Queue) error { return q.Send(ctx, ranges(1)...) }, cloud.KindInvalid, "bad (InvalidMessageContents)"},
		"throttled for long": {always("send", &types.RequestThrottled{}), func(ctx context.Context, q *Queue) error { return q.Send(ctx, ranges(1)...) }, cloud.KindThrottled, "RequestThrottled"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				q := mustOpen(t, tt.f)
				if err := tt.do(t.Context(), q); cloud.KindOf(err) != tt.kind || !strings.Contains(err.Error(), tt.text) {
					t.Errorf("kind %q: %v", cloud.KindOf(err), err)
				}
				q.Leave()
			})
		})
	}
}

// What a receiver that gave up had asked for is for others at once, in this
// process or another.
func TestQueueGivesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSQS{}
		a := mustOpen(t, f)
		ctx, cancel := context.WithCancel(t.Context())
		errs := make(chan error)
		go func() { _, err := a.Receive(ctx); errs <- err }()
		synctest.Wait()
		cancel()
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		b := newQueue(f, a.URL())
		start := time.Now()
		if err := b.Send(t.Context(), ranges(1)...); err != nil {
			t.Fatal(err)
		}
		d, err := b.Receive(t.Context())
		if err != nil || time.Since(start) > time.Second {
			t.Errorf("received after %v: %v", time.Since(start), err)
		}
		// Its holder keeps it for as long as it likes, but for twelve hours.
		for range 13 * 60 {
			if err := b.Extend(t.Context(), d, 2*time.Minute); err != nil {
				if since := time.Since(start); cloud.KindOf(err) != cloud.KindConflict || since < 11*time.Hour+55*time.Minute {
					t.Errorf("after %v: %v", since, err)
				}
				break
			}
			time.Sleep(time.Minute)
		}
		again, err := a.Receive(t.Context())
		if since := time.Since(start); err != nil || since < 11*time.Hour || since > 13*time.Hour {
			t.Errorf("came again after %v, %v", since, err)
		}
		if err := b.Done(t.Context(), d); err != nil { // an old receipt
			t.Error(err)
		}
		if err := a.Return(t.Context(), again, 0); err != nil {
			t.Error(err)
		}
		// A message that is no range goes away.
		if err := f.queue.Send(t.Context(), cloud.Range{}); err != nil {
			t.Fatal(err)
		}
		if d, err := a.Receive(t.Context()); err != nil || d.Run != "r" {
			t.Errorf("received %+v, %v", d, err)
		} else if err := a.Done(t.Context(), d); err != nil {
			t.Error(err)
		}
		wait, stop := context.WithTimeout(t.Context(), time.Hour)
		defer stop()
		if d, err := a.Receive(wait); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("received %+v, %v", d, err)
		}
		if n := f.queue.Len(); n != 0 {
			t.Errorf("%d messages are left", n)
		}
		a.Leave()
		// Somebody else closes it.
		go func() { _, err := b.Receive(t.Context()); errs <- err }()
		synctest.Wait()
		if err := newQueue(f, a.URL()).Close(); err != nil {
			t.Error(err)
		}
		if err := <-errs; cloud.KindOf(err) != cloud.KindClosed {
			t.Errorf("receive: %v", err)
		}
		if err := b.Send(t.Context(), ranges(1)...); cloud.KindOf(err) != cloud.KindClosed {
			t.Errorf("send: %v", err)
		}
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
}
