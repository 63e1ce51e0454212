package aws

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// Receive waits until it can hand out a range, ctx ends, or the queue is
// closed. It goes on waiting while SQS fails or throttles.
func (q *Queue) Receive(ctx context.Context) (cloud.Delivery, error) {
	if err := q.usable(ctx, "receive from"); err != nil {
		return cloud.Delivery{}, err
	}
	w := &waiter{got: make(chan received, 1)}
	q.mu.Lock()
	if q.ended {
		q.mu.Unlock()
		return cloud.Delivery{}, q.closedError("receive from")
	}
	q.waiters = append(q.waiters, w)
	if !q.polling {
		q.polling = true
		q.work.Go(q.poll)
	}
	q.mu.Unlock()

	select {
	case r := <-w.got:
		return r.Delivery, r.err
	case <-ctx.Done():
	}
	q.mu.Lock()
	q.waiters = slices.DeleteFunc(q.waiters, func(x *waiter) bool { return x == w })
	var late *cloud.Delivery
	select {
	case r := <-w.got: // it came at the same moment
		if r.err == nil {
			late = &r.Delivery
		}
	default:
	}
	if late != nil && len(q.waiters) > 0 {
		q.waiters[0].got <- received{Delivery: *late}
		q.waiters = q.waiters[1:]
		late = nil
	}
	if late != nil && !q.ended {
		q.work.Go(func() { q.giveBack(late.Receipt) })
	}
	q.mu.Unlock()
	return cloud.Delivery{}, context.Cause(ctx)
}

// poll asks SQS as long as somebody waits.
func (q *Queue) poll() {
	backoff := newBackoff()
	for {
		q.mu.Lock()
		n := min(len(q.waiters), maxBatch)
		if n == 0 || q.ended {
			q.polling = false
			q.mu.Unlock()
			return
		}
		q.mu.Unlock()

		ctx, cancel := context.WithTimeout(q.ctx, pollWithin)
		out, err := q.api.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &q.url, MaxNumberOfMessages: int32(n),
			WaitTimeSeconds: int32(longPoll / time.Second), VisibilityTimeout: int32(hidden / time.Second)})
		cancel()
		if err == nil {
			backoff = newBackoff()
			for _, m := range out.Messages {
				q.deliver(aws.ToString(m.Body), aws.ToString(m.ReceiptHandle))
			}
			continue
		}
		// The deadline of this poll is not the end of the queue's context: a
		// connection that hangs is a passing trouble.
		err = q.explain(q.ctx, "receive from", err)
		if !passing(err) && !q.notYet(err) && ctx.Err() != context.DeadlineExceeded {
			q.fail(err)
			continue
		}
		wait, _ := backoff.Next()
		if sleep(q.ctx, wait) != nil {
			continue // ended: the waiters know
		}
	}
}

// deliver hands a message to who waits longest, or back to SQS. One that is no
// range is dropped: it would come again and again.
func (q *Queue) deliver(body, receipt string) {
	d := cloud.Delivery{Receipt: receipt}
	if err := json.Unmarshal([]byte(body), &d.Range); err != nil {
		ctx, cancel := context.WithTimeout(q.ctx, closeWaits)
		defer cancel()
		// If that fails it comes again, and is dropped then.
		_, _ = q.api.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &q.url, ReceiptHandle: &receipt})
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiters) == 0 || q.ended {
		q.work.Go(func() { q.giveBack(receipt) })
		return
	}
	q.taken[receipt] = time.Now()
	q.waiters[0].got <- received{Delivery: d}
	q.waiters = q.waiters[1:]
}

// giveBack makes a message visible that nobody here wants. Should it fail, the
// message is visible again in two minutes.
func (q *Queue) giveBack(receipt string) {
	q.mu.Lock()
	delete(q.taken, receipt)
	q.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(q.ctx), closeWaits)
	defer cancel()
	_, _ = q.api.ChangeMessageVisibility(ctx, &sqs.ChangeMessageVisibilityInput{QueueUrl: &q.url, ReceiptHandle: &receipt})
}

// fail tells all who wait. A queue that is gone stays so.
func (q *Queue) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, w := range q.waiters {
		w.got <- received{err: err}
	}
	q.waiters = nil
	if cloud.KindOf(err) == cloud.KindClosed {
		q.ended, q.deleted = true, true
		q.stop()
	}
}
