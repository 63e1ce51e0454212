package aws

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// List calls fn for the objects whose key starts with prefix, page by page.
// What is not a key (S3 consoles make objects like "folder/") is left out.
func (s *Store) List(ctx context.Context, prefix string, fn func(cloud.ObjectInfo) bool) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	q := pageQuery{prefix: s.prefix + prefix}
	for {
		p, err := s.s3.page(ctx, s.loc, q)
		if err != nil {
			return s.explain("list", err)
		}
		for _, o := range p.objects {
			key := strings.TrimPrefix(o.Key, s.prefix)
			if !fs.ValidPath(key) || key == "." {
				continue
			}
			if !fn(cloud.ObjectInfo{Key: key, Size: o.Size, Modified: o.Modified}) {
				return nil
			}
		}
		if p.token == "" {
			return nil
		}
		q.token = p.token
	}
}

const (
	deleteBatch   = 1000 // what one request deletes at most
	deleteWorkers = 4
)

// Delete removes objects.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	names := make([]string, len(keys))
	for i, key := range keys {
		if err := s.begin(ctx, "delete", key); err != nil {
			return err
		}
		names[i] = s.prefix + key
		s.cache.forget(key)
	}
	for len(names) > 0 {
		n := min(len(names), deleteBatch)
		if err := s.delete(ctx, names[:n]); err != nil {
			return err
		}
		names = names[n:]
	}
	return nil
}

// DeletePrefix removes the objects below a prefix: a page is deleted while
// the next ones are listed.
func (s *Store) DeletePrefix(ctx context.Context, prefix string) error {
	prefix = strings.TrimSuffix(prefix, "/")
	if err := s.begin(ctx, "delete", prefix); err != nil {
		return err
	}
	s.cache.forget(prefix)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	batches := make(chan []string)
	var wg sync.WaitGroup
	for range deleteWorkers {
		wg.Go(func() {
			for names := range batches {
				if err := s.delete(ctx, names); err != nil {
					stop(err)
				}
			}
		})
	}
	q := pageQuery{prefix: s.prefix + prefix + "/"}
	for more := true; more; {
		p, err := s.s3.page(ctx, s.loc, q)
		if err != nil {
			stop(s.explain("list", err))
			break
		}
		names := make([]string, len(p.objects))
		for i, o := range p.objects {
			names[i] = o.Key
		}
		if len(names) > 0 {
			batches <- names
		}
		q.token = p.token
		more = p.token != ""
	}
	close(batches)
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// delete removes at most deleteBatch objects by their names in the bucket.
func (s *Store) delete(ctx context.Context, names []string) error {
	var batch []string
	for _, name := range names {
		if len(names) > 1 && inXML(name) {
			batch = append(batch, name)
			continue
		}
		err := s.call(ctx, "delete", strings.TrimPrefix(name, s.prefix), func(c *s3.Client) error {
			_, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.loc.Bucket, Key: &name})
			return err
		})
		if err != nil && cloud.KindOf(err) != cloud.KindNotFound {
			return err
		}
	}
	for try := 1; len(batch) > 0; try++ {
		left, err := s.deleteMany(ctx, batch)
		if err != nil && (len(left) == 0 || try == maxTries) {
			return err
		}
		if len(left) > 0 {
			if err := pause(ctx, try); err != nil {
				return err
			}
		}
		batch = left
	}
	return nil
}

// deleteMany removes objects with one request. It returns those to be tried
// again, with an error of theirs.
func (s *Store) deleteMany(ctx context.Context, names []string) (left []string, err error) {
	ids := make([]types.ObjectIdentifier, len(names))
	for i := range names {
		ids[i].Key = &names[i]
	}
	var out *s3.DeleteObjectsOutput
	err = s.call(ctx, "delete", strings.TrimPrefix(names[0], s.prefix), func(c *s3.Client) (err error) {
		out, err = c.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: &s.loc.Bucket,
			Delete: &types.Delete{Objects: ids, Quiet: aws.Bool(true)}})
		return err
	})
	if err != nil {
		return nil, err
	}
	var last error
	for _, e := range out.Errors {
		name, code := aws.ToString(e.Key), aws.ToString(e.Code)
		kind := kindsOfCodes[code]
		if kind == cloud.KindNotFound {
			continue
		}
		text := aws.ToString(e.Message)
		if kind == cloud.KindDenied {
			text = fmt.Sprintf("the credentials need %s on %s", permissions["delete"], bucketURL(s.loc.Bucket, s.prefix+"*"))
		}
		last = &cloud.Error{Op: "delete", Resource: bucketURL(s.loc.Bucket, name), Kind: kind, Err: errors.New(code + ": " + text)}
		if kind != cloud.KindTransient && kind != cloud.KindThrottled && kind != cloud.KindConflict {
			return nil, last
		}
		left = append(left, name)
	}
	return left, last
}

// inXML says whether XML 1.0, in which a batch of names is sent, has all the
// characters of a name.
func inXML(name string) bool {
	for _, r := range name {
		if r < ' ' || r == 0xFFFE || r == 0xFFFF || r == utf8.RuneError {
			return false
		}
	}
	return true
}
