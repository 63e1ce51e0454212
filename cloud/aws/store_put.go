package aws

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

const (
	partSize    = 8 << 20
	partWorkers = 4
	// partsPerSize is after how many parts their size doubles: S3 takes ten
	// thousand, which at 8 MiB would be too few for the largest objects.
	partsPerSize = 1000
	// abortWithin bounds the clean-up after an upload that failed.
	abortWithin = 10 * time.Second
)

// PutFrom writes an object from a reader that need not know its length: at
// once if it is small, else in parts, some of them at a time. A part is held
// in memory until S3 has it, so the reader is read once.
func (s *Store) PutFrom(ctx context.Context, key string, r io.Reader) error {
	if err := s.begin(ctx, "put", key); err != nil {
		return err
	}
	first, last, err := readPart(r, nil, partSize)
	if err != nil {
		return &cloud.Error{Op: "put", Resource: s.path(key), Err: err}
	}
	if last {
		return s.Put(ctx, key, first)
	}
	u := &upload{s: s, key: key, name: s.prefix + key, nonce: rand.Text(), free: make(chan []byte, partWorkers+2)}
	return u.run(ctx, first, r)
}

// readPart reads up to size bytes into buf, which it may replace. last says
// that the reader has ended.
func readPart(r io.Reader, buf []byte, size int) (part []byte, last bool, err error) {
	if cap(buf) < size {
		// Most objects are small: the first buffer grows with them.
		var b bytes.Buffer
		n, err := b.ReadFrom(io.LimitReader(r, int64(size)))
		return b.Bytes(), n < int64(size), err
	}
	n, err := io.ReadFull(r, buf[:size])
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return buf[:n], true, nil
	}
	return buf[:n], false, err
}

// upload is an object on its way in parts.
type upload struct {
	s             *Store
	key, name, id string
	nonce         string
	free          chan []byte // buffers to use again

	mu    sync.Mutex
	parts []types.CompletedPart
}

type part struct {
	number int32
	data   []byte
}

func (u *upload) run(ctx context.Context, first []byte, r io.Reader) (err error) {
	err = u.s.call(ctx, "put", u.key, func(c *s3.Client) error {
		out, err := c.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: &u.s.loc.Bucket, Key: &u.name,
			Metadata: map[string]string{nonceKey: u.nonce}})
		if err == nil {
			u.id = aws.ToString(out.UploadId)
		}
		return err
	})
	if err != nil {
		return err
	}
	if err = u.send(ctx, first, r); err == nil {
		err = u.complete(ctx)
	}
	if err != nil {
		u.abort(ctx)
	}
	return err
}

// send reads the parts and uploads them.
func (u *upload) send(ctx context.Context, first []byte, r io.Reader) error {
	// A part that is under way is let be: S3 may take it even after we hang up,
	// and behind an abort.
	failed, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	queue := make(chan part)
	var workers sync.WaitGroup
	for range partWorkers {
		workers.Go(func() {
			for p := range queue {
				if failed.Err() == nil {
					if err := u.part(ctx, p); err != nil {
						fail(err)
					}
				}
				u.free <- p.data
			}
		})
	}
	data, last, size := first, false, partSize
	for number := int32(1); ; number++ {
		u.mu.Lock()
		u.parts = append(u.parts, types.CompletedPart{})
		u.mu.Unlock()
		queue <- part{number, data}
		if last || failed.Err() != nil {
			break
		}
		if number%partsPerSize == 0 {
			size *= 2
		}
		var buf []byte
		if int(number) > partWorkers { // one more buffer than there are workers
			buf = <-u.free
		}
		if cap(buf) < size {
			buf = make([]byte, size)
		}
		var err error
		if data, last, err = readPart(r, buf, size); err != nil {
			fail(&cloud.Error{Op: "put", Resource: u.s.path(u.key), Err: err})
			break
		}
		if len(data) == 0 {
			break
		}
	}
	close(queue)
	workers.Wait()
	if failed.Err() != nil {
		return context.Cause(failed)
	}
	return nil
}

func (u *upload) part(ctx context.Context, p part) error {
	return u.s.call(ctx, "put", u.key, func(c *s3.Client) error {
		out, err := c.UploadPart(ctx, &s3.UploadPartInput{Bucket: &u.s.loc.Bucket, Key: &u.name, UploadId: &u.id,
			PartNumber: &p.number, Body: bytes.NewReader(p.data)})
		if err != nil {
			return err
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		u.parts[p.number-1] = types.CompletedPart{PartNumber: &p.number, ETag: out.ETag}
		return nil
	})
}

// complete makes the parts an object. If the answer gets lost the repeated
// request is told that there is no such upload: then the object says by its
// metadata whether it is ours.
func (u *upload) complete(ctx context.Context) error {
	err := u.s.call(ctx, "put", u.key, func(c *s3.Client) error {
		_, err := c.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: &u.s.loc.Bucket, Key: &u.name,
			UploadId: &u.id, MultipartUpload: &types.CompletedMultipartUpload{Parts: u.parts}})
		return err
	})
	var api smithy.APIError
	if !errors.As(err, &api) || api.ErrorCode() != "NoSuchUpload" {
		return err
	}
	found := ""
	herr := u.s.call(ctx, "get", u.key, func(c *s3.Client) error {
		out, err := c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &u.s.loc.Bucket, Key: &u.name})
		if err == nil {
			found = out.Metadata[nonceKey]
		}
		return err
	})
	if herr == nil && found == u.nonce {
		return nil
	}
	return err
}

// abort removes the parts of an upload that failed: they cost money, and no
// listing shows them. It is tried also after the end of ctx, and again until
// S3 knows of no upload, as a part may have come behind an abort. What is left
// when that fails too is what a bucket's lifecycle rule is for.
func (u *upload) abort(ctx context.Context) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), abortWithin)
	defer stop()
	for try := 1; try <= maxTries; try++ {
		err := u.s.call(ctx, "put", u.key, func(c *s3.Client) error {
			_, err := c.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &u.s.loc.Bucket, Key: &u.name, UploadId: &u.id})
			return err
		})
		if cloud.KindOf(err) == cloud.KindNotFound || ctx.Err() != nil {
			return
		}
		if err != nil && pause(ctx, try) != nil {
			return
		}
	}
}
