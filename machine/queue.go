package machine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/wire"
)

// tap is a task queue as one epoch of a session takes from it.
type tap struct {
	url  string
	q    cloud.Queue // nil until opened
	err  error
	dead bool // it was closed by its coordinator
	died time.Time
	open chan struct{}
	ctx  context.Context // ends when another queue counts
	stop context.CancelFunc
}

// newTap opens a queue in the background.
func newTap(s *session, url string) *tap {
	t := &tap{url: url, open: make(chan struct{})}
	t.ctx, t.stop = context.WithCancel(s.taker)
	if url == "" {
		t.dead, t.died = true, time.Now()
		close(t.open)
		return t
	}
	s.sub.Go(func() {
		defer close(t.open)
		t.err = again(t.ctx, func(ctx context.Context) (err error) {
			t.q, err = s.m.cfg.JoinQueue(ctx, url)
			return err
		})
	})
	return t
}

// leave gives back what the queue was about to receive. Nil is fine.
func (t *tap) leave() {
	if t == nil {
		return
	}
	t.stop()
	select {
	case <-t.open:
		leaveQueue(t.q)
	default:
	}
}

// leaveQueue gives up a part in a queue that others go on with. Nil is fine.
func leaveQueue(q cloud.Queue) {
	if l, ok := q.(interface{ Leave() }); ok {
		go l.Leave() // it may wait for its last request; the process ends without it
	}
}

// taken is the queue that a worker sees: what comes out of it is claimed.
type taken struct{ s *session }

var _ cloud.Queue = taken{}

var errOwn = errors.New("a machine only takes work")

func (q taken) Send(context.Context, ...cloud.Range) error { return errOwn }

// Close does nothing: the queue is the coordinator's.
func (q taken) Close() error { return nil }

// Return gives up nothing: a worker ends what it was given.
func (q taken) Return(context.Context, cloud.Delivery, time.Duration) error { return errOwn }

// Receive waits for a range that this machine has claimed.
func (q taken) Receive(ctx context.Context) (cloud.Delivery, error) {
	s := q.s
	backoff := time.Second
	for {
		s.mu.Lock()
		t, ch, closed := s.tap, s.changed, s.closed
		none := t == nil || t.dead
		s.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return cloud.Delivery{}, ctx.Err()
		case closed:
			return cloud.Delivery{}, &cloud.Error{Op: "receive", Resource: "work", Kind: cloud.KindClosed}
		case none:
			wait(ctx, time.Time{}, ch)
			continue
		}
		d, err := t.receive(ctx)
		switch {
		case err == nil:
			if s.claim(t, &d) {
				return d, nil
			}
			backoff = time.Second
		case t.ctx.Err() != nil || ctx.Err() != nil:
		case cloud.KindOf(err) == cloud.KindClosed:
			// Its coordinator has ended, or another one has made a new queue.
			s.log.Info("the queue was closed")
			s.update(func() { t.dead, t.died, s.poke = true, time.Now(), true })
		default:
			s.log.Warn("no work can be received", "err", err)
			wait(t.ctx, time.Now().Add(backoff), nil)
			backoff = min(2*backoff, 30*time.Second)
		}
	}
}

func (t *tap) receive(ctx context.Context) (cloud.Delivery, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.ctx, cancel)()
	select {
	case <-t.open:
	case <-ctx.Done():
		return cloud.Delivery{}, ctx.Err()
	}
	if t.err != nil {
		return cloud.Delivery{}, t.err
	}
	return t.q.Receive(ctx)
}

// claim makes a received range this machine's, or sees to its message.
func (s *session) claim(t *tap, d *cloud.Delivery) bool {
	s.mu.Lock()
	ans, after := admit(&d.Range, s.st.run, s.st.setup.Memory, s.control, s.held[d.ID] != nil || s.taking[d.ID])
	if s.closed && ans == take {
		ans, after = later, 0
	}
	if ans == take {
		s.taking[d.ID] = true
	} else if wire.EpochOf(d.ID) > s.control.Epoch {
		s.poke = true
		s.change()
	}
	s.mu.Unlock()
	if ans == take {
		// What tasks of the function must know is there before its first range.
		_, err := s.st.start(s.work, d.Function, wire.EpochOf(d.ID))
		if err == nil {
			ans, after, err = s.claimObject(d)
		}
		if err != nil {
			if s.work.Err() == nil {
				s.log.Warn("a range could not be claimed", "range", d.ID, "err", err)
			}
			ans, after = later, afterSoon
		}
		s.mu.Lock()
		delete(s.taking, d.ID)
		switch {
		case ans != take:
		case wire.EpochOf(d.ID) < s.control.Epoch || s.discard:
			// The beat for the new coordinator did not have it: it is handed out anew.
			ans = drop
		default:
			s.held[d.ID] = &hold{d: *d, from: t}
			s.st.follow(d.Range)
			s.heldDirty = true
		}
		s.change()
		s.mu.Unlock()
	}
	ctx, cancel := context.WithTimeout(s.ctx, askWithin)
	defer cancel()
	var err error
	switch ans {
	case take:
		return true
	case drop:
		err = t.q.Done(ctx, *d)
	case later:
		err = t.q.Return(ctx, *d, after)
	}
	if err != nil && s.ctx.Err() == nil {
		s.log.Warn("a message was not given back", "range", d.ID, "err", err) // it comes again
	}
	return false
}

// claimObject writes the claim, or finds out who has the range.
func (s *session) claimObject(d *cloud.Delivery) (answer, time.Duration, error) {
	var nonce [12]byte
	_, _ = rand.Read(nonce[:]) // never fails
	mine := &wire.Claim{Machine: s.m.id.ID, Session: s.n, Nonce: hex.EncodeToString(nonce[:]), Range: d.Range, At: time.Now().UTC()}
	b, err := json.Marshal(mine)
	if err != nil {
		return drop, 0, err
	}
	key := wire.ClaimKey(s.st.run, d.ID)
	var other *wire.Claim
	err = again(s.work, func(ctx context.Context) error {
		err := s.m.cfg.Store.Create(ctx, key, b)
		if cloud.KindOf(err) != cloud.KindConflict {
			return err
		}
		have, err := s.m.cfg.Store.Get(ctx, key)
		if err != nil {
			return err
		}
		other = &wire.Claim{}
		if err := json.Unmarshal(have, other); err != nil {
			return &cloud.Error{Op: "read", Resource: key, Kind: cloud.KindCorrupt, Err: err}
		}
		return nil
	})
	if err != nil || other == nil {
		return take, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ans, after := conflict(other, mine, s.control)
	return ans, after, nil
}

// Done notes that every task of a range has been reported.
func (q taken) Done(_ context.Context, d cloud.Delivery) error {
	s := q.s
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held[d.ID]
	if h == nil {
		return nil
	}
	delete(s.held, d.ID)
	s.st.unfollow(d.Range)
	s.heldDirty = true
	if len(s.held) == 0 {
		s.idleSince = time.Now()
	}
	if !s.discard {
		s.pending = append(s.pending, entry{end: h})
	}
	s.change()
	return nil
}
