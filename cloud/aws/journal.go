package aws

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// journal appends segments. Concurrent callers share one: while one is on its
// way, the next collects in cur. Only one is on its way at a time, so records
// keep their order and a segment is written only when the one before is there.
type journal struct {
	s      *Store
	key    string
	header segmentHeader // but for number, state and size

	ctx  context.Context // of the requests
	stop context.CancelFunc
	quit chan struct{} // closed by Close: no more signs of life
	// turn is held (by sending) while a segment is written.
	turn chan struct{}
	lost chan struct{} // closed when nothing can be appended any more

	mu     sync.Mutex
	cur    *group
	wrote  time.Time // when the last segment was written
	err    error     // why nothing can be appended any more
	closed bool
}

// group is the records of one segment.
type group struct {
	number int64
	buf    []byte
	done   chan struct{} // closed once it is durable, or failed
	err    error
}

func newGroup(number int64) *group { return &group{number: number, done: make(chan struct{})} }

var _ cloud.Journal = (*journal)(nil)

// closeWithin bounds what Close waits for S3.
const closeWithin = 5 * time.Second

// OpenJournal opens a journal for writing, by writing its next segment.
func (s *Store) OpenJournal(ctx context.Context, key string) (cloud.Journal, error) {
	const op = "open journal"
	if err := s.begin(ctx, op, key); err != nil {
		return nil, err
	}
	h, err := s.holder(ctx, key)
	if err != nil {
		return nil, err
	}
	if h.alive {
		return nil, &cloud.Error{Op: op, Resource: s.path(key), Kind: cloud.KindConflict, Err: h.who()}
	}
	number, epoch := int64(1), int64(1)
	if h.last != nil {
		number, epoch = h.last.number+1, h.head.Epoch+1
	}
	host, _ := os.Hostname() // it is only for messages
	j := &journal{s: s, key: key, turn: make(chan struct{}, 1), quit: make(chan struct{}), lost: make(chan struct{}),
		header: segmentHeader{Epoch: epoch, Writer: rand.Text(), Host: host, owner: self()}}
	err = j.write(ctx, number, stateOpen, nil)
	if cloud.KindOf(err) == cloud.KindConflict {
		return nil, &cloud.Error{Op: op, Resource: s.path(key), Kind: cloud.KindConflict, Err: errors.New("another process has just taken it")}
	}
	if err != nil {
		return nil, err
	}
	j.ctx, j.stop = context.WithCancel(context.WithoutCancel(ctx))
	j.cur, j.wrote = newGroup(number+1), time.Now()
	go j.live()
	return j, nil
}

// Append writes records; see cloud.Journal.
func (j *journal) Append(recs ...[]byte) ([]int64, error) {
	for _, r := range recs {
		if len(r) > maxRecord {
			return nil, &cloud.Error{Op: "append to journal", Resource: j.path(), Kind: cloud.KindInvalid,
				Err: fmt.Errorf("a record of %d bytes; at most %d", len(r), maxRecord)}
		}
	}
	j.mu.Lock()
	err := j.usable()
	j.mu.Unlock()
	if err != nil || len(recs) == 0 {
		return nil, err
	}
	pos := make([]int64, len(recs))
	var g *group
	for i, r := range recs {
		at, p, err := j.enqueue(r)
		if err != nil {
			return nil, err
		}
		g, pos[i] = at, p
	}
	// Segments are written in order: with the last one all are durable.
	if err := j.finish(g); err != nil {
		return nil, err
	}
	return pos, nil
}

// enqueue adds a record to the segment that is collecting.
func (j *journal) enqueue(rec []byte) (*group, int64, error) {
	for {
		j.mu.Lock()
		if err := j.usable(); err != nil {
			j.mu.Unlock()
			return nil, 0, err
		}
		g := j.cur
		if len(g.buf) < fullSegment {
			var pos int64
			g.buf, pos = appendRecord(g.buf, g.number, rec)
			j.mu.Unlock()
			return g, pos, nil
		}
		j.mu.Unlock()
		if err := j.finish(g); err != nil {
			return nil, 0, err
		}
	}
}

func (j *journal) path() string { return j.s.path(j.key) }

// usable says why nothing can be appended, or nil. The caller holds mu.
func (j *journal) usable() error {
	switch {
	case j.err != nil:
		return fmt.Errorf("%w (the journal takes no more records after this)", j.err)
	case j.closed:
		return &cloud.Error{Op: "append to journal", Resource: j.path(), Kind: cloud.KindClosed}
	case j.cur.number >= maxSegments:
		return &cloud.Error{Op: "append to journal", Resource: j.path(), Kind: cloud.KindFull,
			Err: fmt.Errorf("a journal has at most %d segments", maxSegments)}
	}
	return nil
}

// finish returns when the group is durable. Whoever gets the turn while it is
// not writes it.
func (j *journal) finish(g *group) error {
	select {
	case <-g.done:
		return g.err
	case j.turn <- struct{}{}:
	}
	defer func() { <-j.turn }()
	return j.commit(g)
}

// commit writes a group unless that is done. The caller holds the turn.
func (j *journal) commit(g *group) error {
	select {
	case <-g.done:
		return g.err
	default:
	}
	// Nobody else takes cur, and g is not done: g is cur.
	j.mu.Lock()
	err := j.err
	if err == nil && j.closed {
		err = j.usable()
	}
	if err == nil {
		j.cur = newGroup(g.number + 1)
	} else {
		j.cur = newGroup(g.number) // g is not written: the number is free
	}
	j.mu.Unlock()
	if err == nil {
		err = j.persist(j.ctx, g.number, stateRecords, g.buf)
		j.wroteNow(err)
	}
	g.err = err
	close(g.done)
	return err
}

// wroteNow notes the end of a write.
func (j *journal) wroteNow(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err == nil {
		j.wrote = time.Now()
	} else if j.err == nil {
		j.err = err
		close(j.lost)
	}
}

// Lost is closed when the journal takes no more records: another process has
// taken it over, or the store has failed for too long. Append says which.
func (j *journal) Lost() <-chan struct{} { return j.lost }

// persist writes a segment, and goes on trying while S3 or the network fails:
// if that lasts another writer may take over, and then the write says so.
func (j *journal) persist(ctx context.Context, number int64, state string, records []byte) error {
	began := time.Now()
	for try := 1; ; try++ {
		err := j.write(ctx, number, state, records)
		kind := cloud.KindOf(err)
		if err == nil || kind != cloud.KindTransient && kind != cloud.KindThrottled || time.Since(began) > j.s.patience {
			return err
		}
		if pause(ctx, try) != nil {
			return err
		}
	}
}

// write creates a segment: KindConflict if it exists and is not our own.
func (j *journal) write(ctx context.Context, number int64, state string, records []byte) error {
	h := j.header
	h.Number, h.State = number, state
	data, err := encodeHeader(h, len(records))
	if err != nil {
		return &cloud.Error{Op: "append to journal", Resource: j.path(), Kind: cloud.KindInvalid, Err: err}
	}
	data = append(data, records...)
	key := j.key + "/" + segmentName(number)
	name := j.s.prefix + key
	for try := 1; ; try++ {
		etag := ""
		err := j.s.call(ctx, "create", key, func(c *s3.Client) error {
			out, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: &j.s.loc.Bucket, Key: &name, Body: bytes.NewReader(data), IfNoneMatch: aws.String("*")})
			if err == nil {
				etag = aws.ToString(out.ETag)
			}
			return err
		})
		if err == nil {
			j.s.cache.put(j.key, number, etag, data)
			j.s.cache.setHint(j.key, number)
			return nil
		}
		if cloud.KindOf(err) != cloud.KindConflict {
			return err
		}
		// Somebody has it. That may be us, if an answer got lost.
		found, _, err := j.s.get(ctx, key, fmt.Sprintf("bytes=0-%d", headSize-1))
		if err == nil {
			was, _, perr := parseHeader(found)
			if perr == nil && was.Writer == h.Writer {
				return nil
			}
			return &cloud.Error{Op: "append to journal", Resource: j.path(), Kind: cloud.KindConflict, Err: errTaken}
		}
		// Nobody has it: a conflict with something that was under way.
		if cloud.KindOf(err) != cloud.KindNotFound {
			return err
		}
		if try == maxTries {
			return &cloud.Error{Op: "append to journal", Resource: j.path(), Kind: cloud.KindConflict, Err: fs.ErrExist}
		}
		if err := pause(ctx, try); err != nil {
			return err
		}
	}
}

// live writes a segment without records when there was nothing to write for a
// while: a sign of life, and the way in which a writer with nothing to record
// learns that it was replaced.
func (j *journal) live() {
	wait := j.s.beat
	for {
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-j.lost:
			t.Stop()
			return
		case <-j.quit:
			t.Stop()
			return
		}
		j.mu.Lock()
		wait = j.s.beat - time.Since(j.wrote)
		g := j.cur
		j.mu.Unlock()
		if wait > 0 {
			continue
		}
		if j.finish(g) != nil {
			return
		}
		wait = j.s.beat
	}
}

// Close releases the journal, after the write that is under way: its last
// segment says that the next writer need not wait. Closing it again is not an
// error.
func (j *journal) Close() error {
	j.mu.Lock()
	again := j.closed
	j.closed = true
	j.mu.Unlock()
	if again {
		return nil
	}
	close(j.quit)
	// What is under way may be trying for minutes.
	patience := time.AfterFunc(closeWithin, j.stop)
	j.turn <- struct{}{}
	patience.Stop()
	defer func() { <-j.turn }()
	defer j.stop()
	j.mu.Lock()
	g, broken := j.cur, j.err != nil
	g.err = &cloud.Error{Op: "append to journal", Resource: j.path(), Kind: cloud.KindClosed}
	if broken {
		g.err = j.err
	}
	j.cur = newGroup(g.number)
	j.mu.Unlock()
	close(g.done)
	if broken {
		return nil // it is not ours any more, or S3 is away: silence says the same
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(j.ctx), closeWithin)
	defer stop()
	err := j.persist(ctx, g.number, stateClosed, nil)
	if cloud.KindOf(err) == cloud.KindConflict {
		return nil // somebody has it already
	}
	return err
}
