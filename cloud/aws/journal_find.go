package aws

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// journalSegment is a segment as a listing has it.
type journalSegment struct {
	number   int64
	size     int64
	modified time.Time
	etag     string
}

// segmentPage is a page of the segments of a journal.
type segmentPage struct {
	list []journalSegment
	more bool
	now  time.Time // the server's
}

// segments lists the segments with numbers greater than after.
func (s *Store) segments(ctx context.Context, key string, after int64) (p segmentPage, err error) {
	prefix := s.prefix + key + "/"
	in := &s3.ListObjectsV2Input{Bucket: &s.loc.Bucket, Prefix: &prefix}
	if after > 0 {
		in.StartAfter = aws.String(prefix + segmentName(after))
	}
	var out *s3.ListObjectsV2Output
	err = s.call(ctx, "list", key, func(c *s3.Client) (err error) {
		out, err = c.ListObjectsV2(ctx, in)
		return err
	})
	if err != nil {
		return p, err
	}
	p.more = aws.ToBool(out.IsTruncated)
	p.now, _ = awsmiddleware.GetServerTime(out.ResultMetadata)
	if p.now.IsZero() {
		p.now = time.Now()
	}
	for _, o := range out.Contents {
		if n, ok := segmentNumber(strings.TrimPrefix(aws.ToString(o.Key), prefix)); ok {
			p.list = append(p.list, journalSegment{number: n, size: aws.ToInt64(o.Size),
				modified: aws.ToTime(o.LastModified), etag: aws.ToString(o.ETag)})
		}
	}
	return p, nil
}

// lastSegment finds the last segment of a journal, and the server's time;
// nil if there is none. Numbers have no gaps, so a long journal is not read
// through: whether anything follows a number is one request.
func (s *Store) lastSegment(ctx context.Context, key string) (*journalSegment, time.Time, error) {
	hint := s.cache.hint(key)
	lo, hi, step := max(hint-1, 0), int64(0), int64(4000)
	var last journalSegment
	for at := lo; ; {
		p, err := s.segments(ctx, key, at)
		if err != nil {
			return nil, p.now, err
		}
		switch n := len(p.list); {
		case n > 0:
			last = p.list[n-1]
			lo = last.number
			if !p.more || hi > 0 && lo >= hi {
				s.cache.setHint(key, lo)
				return &last, p.now, nil
			}
		case at == 0:
			return nil, p.now, nil
		case last.number == 0: // the hint was of a journal that was deleted
			at = 0
			continue
		default:
			hi = at
		}
		if hi == 0 {
			at = lo + step
			step *= 4
			continue
		}
		// Between lo, which is there, and hi, behind which nothing is. A page
		// holds a thousand, so the last step need not be exact.
		at = lo + (hi-lo)/2
		if hi-lo <= 1000 {
			at = lo - 1
		}
	}
}

// head reads the header of a segment.
func (s *Store) head(ctx context.Context, key string, g journalSegment) (segmentHeader, error) {
	name := key + "/" + segmentName(g.number)
	b := s.cache.get(key, g.number, g.etag)
	if b == nil {
		var err error
		if b, _, err = s.get(ctx, name, fmt.Sprintf("bytes=0-%d", headSize-1)); err != nil {
			return segmentHeader{}, err
		}
		if int64(len(b)) == g.size {
			s.cache.put(key, g.number, g.etag, b)
		}
	}
	h, _, err := parseHeader(b)
	if err == nil && h.Number != g.number {
		err = fmt.Errorf("this is segment %d", h.Number)
	}
	if err != nil {
		return h, &cloud.Error{Op: "read journal", Resource: s.path(name), Kind: cloud.KindCorrupt, Err: err}
	}
	return h, nil
}

// holder is what is known about who writes a journal.
type holder struct {
	last  *journalSegment // nil: there is no journal yet
	head  segmentHeader
	quiet time.Duration // since its last sign of life
	alive bool
}

// holder looks who writes a journal.
func (s *Store) holder(ctx context.Context, key string) (h holder, err error) {
	for try := 1; ; try++ {
		var now time.Time
		h.last, now, err = s.lastSegment(ctx, key)
		if err != nil || h.last == nil {
			return h, err
		}
		h.head, err = s.head(ctx, key, *h.last)
		if err == nil {
			h.quiet = max(0, now.Sub(h.last.modified))
			h.alive = h.head.State != stateClosed && h.quiet < s.silence && !h.head.gone()
			return h, nil
		}
		if cloud.KindOf(err) != cloud.KindNotFound || try == maxTries {
			return h, err
		}
		s.cache.forget(key) // it is being deleted
	}
}

// who describes the writer for people.
func (h holder) who() error {
	by := "another process"
	if h.head.Host != "" {
		by = fmt.Sprintf("process %d on %s", h.head.PID, h.head.Host)
	}
	return fmt.Errorf("%s is writing it (heard of %s ago)", by, h.quiet.Round(time.Second))
}

// JournalAlive says whether a live writer holds the journal; see the
// description of segments.
func (s *Store) JournalAlive(ctx context.Context, key string) (bool, error) {
	if err := s.begin(ctx, "look at journal", key); err != nil {
		return false, err
	}
	h, err := s.holder(ctx, key)
	return h.alive, err
}

// segmentCache keeps segments that were read or written lately: records are
// read one at a time, and many share a segment. It also remembers how far
// journals were known to go.
type segmentCache struct {
	mu    sync.Mutex
	hints map[string]int64
	list  []cached // the one used last is the last
	size  int
}

type cached struct {
	key    string
	number int64
	etag   string
	data   []byte
}

const (
	cacheBytes = 16 << 20
	cacheHints = 1000
)

func (c *segmentCache) hint(key string) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hints[key]
}

func (c *segmentCache) setHint(key string, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hints == nil || len(c.hints) >= cacheHints {
		c.hints = map[string]int64{}
	}
	c.hints[key] = n
}

// get returns a whole segment, nil if it is not there. etag may be "" where it
// is not known.
func (c *segmentCache) get(key string, number int64, etag string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := len(c.list) - 1; i >= 0; i-- {
		e := c.list[i]
		if e.number == number && e.key == key && (etag == "" || e.etag == etag) {
			copy(c.list[i:], c.list[i+1:])
			c.list[len(c.list)-1] = e
			return e.data
		}
	}
	return nil
}

func (c *segmentCache) put(key string, number int64, etag string, data []byte) {
	if etag == "" || len(data) > cacheBytes/2 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(func(e cached) bool { return e.number == number && e.key == key })
	c.list = append(c.list, cached{key, number, etag, data})
	c.size += len(data)
	n := 0
	for c.size > cacheBytes || len(c.list)-n > cacheHints {
		c.size -= len(c.list[n].data)
		n++
	}
	if n > 0 {
		c.list = append(c.list[:0:0], c.list[n:]...)
	}
}

// drop removes what which says. The caller holds mu.
func (c *segmentCache) drop(which func(cached) bool) {
	kept := c.list[:0]
	for _, e := range c.list {
		if which(e) {
			c.size -= len(e.data)
		} else {
			kept = append(kept, e)
		}
	}
	clear(c.list[len(kept):])
	c.list = kept
}

// forget is told that what lies at a key, or below it, is deleted.
func (c *segmentCache) forget(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	under := func(k string) bool {
		return k == key || strings.HasPrefix(k, key+"/") || strings.HasPrefix(key, k+"/")
	}
	c.drop(func(e cached) bool { return under(e.key) })
	for k := range c.hints {
		if under(k) {
			delete(c.hints, k)
		}
	}
}

// errTaken is why a writer stops.
var errTaken = errors.New("another process has taken it over; this one records and starts nothing more")
