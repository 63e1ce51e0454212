package aws

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// sqsAPI is what a Queue calls of SQS.
type sqsAPI interface {
	CreateQueue(context.Context, *sqs.CreateQueueInput, ...func(*sqs.Options)) (*sqs.CreateQueueOutput, error)
	DeleteQueue(context.Context, *sqs.DeleteQueueInput, ...func(*sqs.Options)) (*sqs.DeleteQueueOutput, error)
	SendMessageBatch(context.Context, *sqs.SendMessageBatchInput, ...func(*sqs.Options)) (*sqs.SendMessageBatchOutput, error)
	ReceiveMessage(context.Context, *sqs.ReceiveMessageInput, ...func(*sqs.Options)) (*sqs.ReceiveMessageOutput, error)
	DeleteMessage(context.Context, *sqs.DeleteMessageInput, ...func(*sqs.Options)) (*sqs.DeleteMessageOutput, error)
	ChangeMessageVisibility(context.Context, *sqs.ChangeMessageVisibilityInput, ...func(*sqs.Options)) (*sqs.ChangeMessageVisibilityOutput, error)
}

// Queue is a task queue on SQS. A range that was received is hidden from
// others for two minutes, and for longer as long as its holder calls Extend;
// then somebody else looks at it. SQS may hand out a range twice.
//
// One poll at a time serves all receivers of a process. A poll goes on when its
// receiver gives up: what a cancelled request took would be hidden for nothing.
type Queue struct {
	api  sqsAPI
	url  string
	name string

	ctx  context.Context // of the polls; ends with Close and Leave
	stop context.CancelFunc
	work sync.WaitGroup // the poll, and what it gives back

	mu      sync.Mutex
	waiters []*waiter // receivers, in the order they came
	polling bool
	ended   bool                 // closed, left or deleted by somebody else
	deleted bool                 // by us
	taken   map[string]time.Time // receipts, and when they were received
	young   time.Time            // until then "no such queue" means "not yet"
}

// waiter is a Receive that waits.
type waiter struct {
	got chan received // buffered: the poll never waits
}

type received struct {
	cloud.Delivery
	err error
}

var _ cloud.Queue = (*Queue)(nil)

const (
	// hidden is how long a range that was received is nobody else's.
	hidden = 2 * time.Minute
	// maxHidden is SQS's limit, counted from when a message was received.
	maxHidden = 12 * time.Hour
	// longPoll is how long SQS waits for a message, and pollWithin how long a
	// poll may take before its connection counts as broken.
	longPoll, pollWithin = 20 * time.Second, 35 * time.Second
	// maxBatch is how many messages SQS takes or gives at a time.
	maxBatch = 10
	// senders is how many batches are on their way at a time.
	senders = 4
	// retention is how long SQS keeps what nobody takes: its maximum.
	retention = 14 * 24 * time.Hour
	// settling is how long a queue may be unknown after it was made (Amazon
	// says a second), and recreate how long its name is blocked after it was
	// deleted (a minute).
	settling, recreate = 10 * time.Second, 75 * time.Second
	// maxQueueName is SQS's limit.
	maxQueueName = 80
)

// QueueOptions says which queue is meant.
type QueueOptions struct {
	Run string
	// Kind tells the queues of a run apart: one for each sort of machines. The
	// name of a queue that was closed is blocked for a minute, so a run that
	// goes on afterwards starts sooner if Kind differs.
	Kind   string
	Region string // empty: the configured one
	// Store is where the run is; it is noted with the queue, so that a clean-up
	// can ask whether the run is over.
	Store string
	// Tags are put on the queue, beside the run's.
	Tags map[string]string
}

// OpenQueue makes the queue of a run, or opens it if it is there.
func OpenQueue(ctx context.Context, o QueueOptions) (*Queue, error) {
	cfg, err := loadConfig(ctx)
	if err != nil {
		return nil, err
	}
	if o.Region != "" {
		cfg.Region = o.Region
	}
	return openQueue(ctx, sqs.NewFromConfig(cfg), o)
}

// JoinQueue opens a queue that somebody else made, by its URL. It does not
// speak to SQS yet.
func JoinQueue(ctx context.Context, url string) (*Queue, error) {
	cfg, err := loadConfig(ctx)
	if err != nil {
		return nil, err
	}
	// sqs.<region>.amazonaws.com
	if parts := strings.Split(url, "."); len(parts) > 3 && strings.HasSuffix(parts[0], "://sqs") && isAmazon(url) {
		cfg.Region = parts[1]
	}
	return newQueue(sqs.NewFromConfig(cfg), url), nil
}

func newQueue(api sqsAPI, url string) *Queue {
	q := &Queue{api: api, url: url, name: url[strings.LastIndexByte(url, '/')+1:], taken: map[string]time.Time{}, young: time.Now().Add(settling)}
	q.ctx, q.stop = context.WithCancel(context.Background())
	return q
}

func openQueue(ctx context.Context, api sqsAPI, o QueueOptions) (*Queue, error) {
	name := queueName(o.Run, o.Kind)
	tags := map[string]string{tagRun: o.Run}
	maps.Copy(tags, o.Tags)
	if o.Store != "" && tagValue.MatchString(o.Store) {
		tags[tagStore] = o.Store
	}
	in := &sqs.CreateQueueInput{QueueName: &name, Tags: tags, Attributes: map[string]string{
		string(types.QueueAttributeNameVisibilityTimeout):             wholeSeconds(hidden),
		string(types.QueueAttributeNameMessageRetentionPeriod):        wholeSeconds(retention),
		string(types.QueueAttributeNameReceiveMessageWaitTimeSeconds): wholeSeconds(longPoll),
	}}
	var url string
	err := again(ctx, recreate, func(err error) bool { return passing(err) || isCode(err, "QueueDeletedRecently") }, func(ctx context.Context) error {
		out, err := api.CreateQueue(ctx, in)
		if err == nil {
			url = aws.ToString(out.QueueUrl)
		}
		return queueError(ctx, "create queue", name, err)
	})
	if err != nil {
		return nil, err
	}
	q := newQueue(api, url)
	q.name = name
	return q, nil
}

// queueName is the name of a run's queue: its id and kind as they are if SQS
// takes them, otherwise with a hash in place of what it does not.
func queueName(run, kind string) string {
	name := queuePrefix + run
	if kind != "" {
		name += "-" + kind
	}
	clean := strings.Map(func(r rune) rune {
		if r < 128 && (r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z') {
			return r
		}
		return '_'
	}, name)
	if clean == name && len(name) <= maxQueueName {
		return name
	}
	sum := "-" + shortHash(run, kind)
	return clean[:min(len(clean), maxQueueName-len(sum))] + sum
}

// queuePrefix begins the names of all queues of this program.
const queuePrefix = "coiled-jobs-"

func wholeSeconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }

// URL is the address with which JoinQueue opens the queue.
func (q *Queue) URL() string { return q.url }

// Send adds ranges, in batches. What SQS refused of a batch is sent again; so
// after an error some of the ranges may be there.
func (q *Queue) Send(ctx context.Context, ranges ...cloud.Range) error {
	if err := q.usable(ctx, "send to"); err != nil || len(ranges) == 0 {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	batches := make(chan []cloud.Range)
	var workers sync.WaitGroup
	for range min(senders, (len(ranges)+maxBatch-1)/maxBatch) {
		workers.Go(func() {
			for b := range batches {
				if err := q.sendBatch(ctx, b); err != nil {
					cancel(err)
				}
			}
		})
	}
	for b := range slices.Chunk(ranges, maxBatch) {
		select {
		case batches <- b:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(batches)
	workers.Wait()
	return context.Cause(ctx)
}

func (q *Queue) sendBatch(ctx context.Context, ranges []cloud.Range) error {
	var entries []types.SendMessageBatchRequestEntry
	for i, r := range ranges {
		body, err := json.Marshal(r)
		if err != nil {
			return &cloud.Error{Op: "send to queue", Resource: q.name, Kind: cloud.KindInvalid, Err: err}
		}
		entries = append(entries, types.SendMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), MessageBody: aws.String(string(body))})
	}
	return q.call(ctx, "send to", func(ctx context.Context) error {
		out, err := q.api.SendMessageBatch(ctx, &sqs.SendMessageBatchInput{QueueUrl: &q.url, Entries: entries})
		if err != nil || len(out.Failed) == 0 {
			return err
		}
		refused := map[string]bool{}
		for _, f := range out.Failed {
			refused[aws.ToString(f.Id)] = true
			kind, known := kindsOfCodes[aws.ToString(f.Code)]
			if !known && !f.SenderFault {
				kind = cloud.KindTransient
			}
			err = &cloud.Error{Op: "send to queue", Resource: q.name, Kind: kind,
				Err: fmt.Errorf("%s (%s)", lowerFirst(aws.ToString(f.Message)), aws.ToString(f.Code))}
		}
		entries = slices.DeleteFunc(entries, func(e types.SendMessageBatchRequestEntry) bool { return !refused[aws.ToString(e.Id)] })
		return err
	})
}

// Done removes a received range for good, also when its receipt has expired.
func (q *Queue) Done(ctx context.Context, d cloud.Delivery) error {
	if q.forget(ctx, d) {
		return nil
	}
	err := q.call(ctx, "remove from", func(ctx context.Context) error {
		_, err := q.api.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &q.url, ReceiptHandle: &d.Receipt})
		return err
	})
	return unlessGone(err)
}

// Return makes a received range available again after a delay: at most what is
// left of the twelve hours for which SQS hides a message.
func (q *Queue) Return(ctx context.Context, d cloud.Delivery, after time.Duration) error {
	q.mu.Lock()
	since, ok := q.taken[d.Receipt]
	ended := q.ended
	q.mu.Unlock()
	if !ok || ended {
		return nil
	}
	if after <= 0 {
		q.forget(ctx, d)
	}
	return unlessGone(q.hide(ctx, d, min(after, leftHidden(since))))
}

// Extend hides a received range from others for a time from now on. Its holder
// calls it while it works. After twelve hours SQS hides it no longer:
// KindConflict; somebody else will look at it then.
func (q *Queue) Extend(ctx context.Context, d cloud.Delivery, by time.Duration) error {
	q.mu.Lock()
	since, ok := q.taken[d.Receipt]
	ended := q.ended
	q.mu.Unlock()
	switch {
	case ended:
		return q.closedError("extend in")
	case !ok:
		return nil
	}
	left := leftHidden(since)
	if left <= 0 {
		return &cloud.Error{Op: "extend in queue", Resource: q.name, Kind: cloud.KindConflict,
			Err: fmt.Errorf("it was received %v ago, longer than SQS hides a message", time.Since(since).Round(time.Minute))}
	}
	return unlessGone(q.hide(ctx, d, min(by, left)))
}

// leftHidden is for how long a message can still be hidden. SQS counts by its
// own clock.
func leftHidden(since time.Time) time.Duration { return maxHidden - time.Minute - time.Since(since) }

func (q *Queue) hide(ctx context.Context, d cloud.Delivery, by time.Duration) error {
	return q.call(ctx, "give back to", func(ctx context.Context) error {
		_, err := q.api.ChangeMessageVisibility(ctx, &sqs.ChangeMessageVisibilityInput{QueueUrl: &q.url, ReceiptHandle: &d.Receipt,
			VisibilityTimeout: int32(math.Ceil(max(by, 0).Seconds()))})
		return err
	})
}

// forget forgets a receipt, and says that there is nothing to do about it.
func (q *Queue) forget(ctx context.Context, d cloud.Delivery) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if ctx.Err() != nil {
		return false
	}
	_, ok := q.taken[d.Receipt]
	delete(q.taken, d.Receipt)
	return !ok || q.ended
}

// unlessGone drops errors about a message that is not there, or in nobody's
// hands, and about a queue that was deleted.
func unlessGone(err error) error {
	if k := cloud.KindOf(err); k == cloud.KindClosed || k == cloud.KindNotFound {
		return nil
	}
	if isCode(err, "ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidParameterValue", "InvalidParameterCombination") {
		return nil
	}
	return err
}

// Leave ends this process's part in the queue, which stays: what it was about
// to receive is given back.
func (q *Queue) Leave() {
	q.end()
	q.work.Wait()
}

// end wakes who waits, and ends the poll.
func (q *Queue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	for _, w := range q.waiters {
		w.got <- received{err: q.closedError("receive from")}
	}
	q.waiters = nil
	q.stop()
}

// closeWaits bounds what Close waits for SQS.
const closeWaits = 15 * time.Second

// Close deletes the queue, with what is in it. Others get KindClosed as soon as
// SQS knows. After an error it may be called again.
func (q *Queue) Close() error {
	q.Leave()
	q.mu.Lock()
	deleted := q.deleted
	q.mu.Unlock()
	if deleted {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeWaits)
	defer cancel()
	err := again(ctx, closeWaits, passing, func(ctx context.Context) error {
		_, err := q.api.DeleteQueue(ctx, &sqs.DeleteQueueInput{QueueUrl: &q.url})
		return queueError(ctx, "delete queue", q.name, err)
	})
	if isCode(err, noQueue...) {
		err = nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.deleted = err == nil
	return err
}

func (q *Queue) usable(ctx context.Context, op string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case q.ended:
		return q.closedError(op)
	}
	return nil
}

func (q *Queue) closedError(op string) error {
	return &cloud.Error{Op: op + " queue", Resource: q.name, Kind: cloud.KindClosed, Err: errors.New("the queue was closed")}
}

// patience is for how long a request is made again that SQS could not answer.
const queuePatience = time.Minute

// call makes a request about the queue, again where that may help.
func (q *Queue) call(ctx context.Context, op string, do func(context.Context) error) error {
	return again(ctx, queuePatience, func(err error) bool { return passing(err) || q.notYet(err) }, func(ctx context.Context) error {
		return q.explain(ctx, op, do(ctx))
	})
}

// noQueue is the codes for a queue that does not exist.
var noQueue = []string{"QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"}

func (q *Queue) notYet(err error) bool {
	return cloud.KindOf(err) == cloud.KindClosed && isCode(err, noQueue...) && time.Now().Before(q.young)
}

// explain maps an error; a queue that does not exist is closed.
func (q *Queue) explain(ctx context.Context, op string, err error) error {
	if isCode(err, noQueue...) && ctx.Err() == nil {
		return &cloud.Error{Op: op + " queue", Resource: q.name, Kind: cloud.KindClosed, Err: err}
	}
	return queueError(ctx, op+" queue", q.name, err)
}
