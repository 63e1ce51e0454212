package aws

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// Store keeps the objects of runs in an S3 bucket, under a prefix. S3 makes a
// write visible whole and at once, and lets exactly one of many writers create
// an object (If-None-Match), which is all that the contract needs.
type Store struct {
	s3     *S3
	loc    cloud.S3Location
	prefix string // "" or ends in "/"
	cache  segmentCache

	// How often a journal's writer writes at the latest, and after how long a
	// silence it counts as dead.
	beat, silence time.Duration
	// patience is how long a journal's writer goes on trying while S3 fails: an
	// hour without S3 ends no run. Another may take the journal over meanwhile.
	patience time.Duration
}

var _ cloud.Store = (*Store)(nil)

const (
	// nonceKey is the user metadata by which a writer knows its own object.
	nonceKey = "coiled-jobs-nonce"
	// maxKey is how long a key of S3 may be, in bytes.
	maxKey = 1024
	// maxTries is how often something is done again that met a concurrent
	// write or a broken connection.
	maxTries = 6
)

// OpenStore opens the store at s3://bucket or s3://bucket/prefix. Credentials,
// region and endpoint come from the SDK's own environment variables and files;
// the bucket's region is found when the bucket is first used, which is not now.
func OpenStore(ctx context.Context, url string) (*Store, error) {
	rest, ok := strings.CutPrefix(url, "s3://")
	bucket, prefix, _ := strings.Cut(rest, "/")
	prefix = strings.Trim(prefix, "/")
	why := ""
	switch {
	case !ok || bucket == "" || strings.ContainsAny(bucket, " ?#%\\"):
		why = "a store in a bucket is written s3://bucket or s3://bucket/prefix"
	case prefix == "":
	case !fs.ValidPath(prefix) || !utf8.ValidString(prefix):
		why = "the prefix has empty, . or .. elements, or is not valid UTF-8"
	}
	if why != "" {
		return nil, &cloud.Error{Op: "open store", Resource: url, Kind: cloud.KindInvalid, Err: errors.New(why)}
	}
	client, err := NewS3(ctx)
	if err != nil {
		return nil, err
	}
	if prefix != "" {
		prefix += "/"
	}
	return &Store{s3: client, loc: cloud.S3Location{Bucket: bucket}, prefix: prefix,
		beat: 20 * time.Second, silence: time.Minute, patience: 90 * time.Minute}, nil
}

// URL is the address of the store: s3://bucket/prefix.
func (s *Store) URL() string { return bucketURL(s.loc.Bucket, strings.TrimSuffix(s.prefix, "/")) }

// PollEvery is how often a reader that follows a run should look: every look
// is a billed request over a network.
func (s *Store) PollEvery() time.Duration { return 2 * time.Second }

// path is the address of an object, for messages.
func (s *Store) path(key string) string { return bucketURL(s.loc.Bucket, s.prefix+key) }

// begin checks what every operation on a key checks.
func (s *Store) begin(ctx context.Context, op, key string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	why := cloud.BadKey(key)
	switch {
	case why != "":
	case len(s.prefix)+len(key) > maxKey:
		why = fmt.Sprintf("a key of S3 has at most %d bytes", maxKey)
	default:
		return nil
	}
	return &cloud.Error{Op: op, Resource: fmt.Sprintf("%q in %s", key, s.URL()), Kind: cloud.KindInvalid, Err: errors.New(why)}
}

// call runs a request about a key.
func (s *Store) call(ctx context.Context, op, key string, do func(*s3.Client) error) error {
	return s.explain(op, s.s3.call(ctx, s.loc, op, s.path(key), do))
}

// permissions is what the operations of a store need.
var permissions = map[string]string{
	"get": "s3:GetObject", "put": "s3:PutObject", "create": "s3:PutObject", "list": "s3:ListBucket", "delete": "s3:DeleteObject",
}

// errNoStoreCredentials says what to do without credentials.
var errNoStoreCredentials = errors.New("no AWS credentials for the store: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and " +
	`AWS_SECRET_ACCESS_KEY, or log in ("aws sso login"); or keep runs in a folder (--store)`)

// explain says of some errors what they mean for a store, and what to do.
func (s *Store) explain(op string, err error) error {
	var known *cloud.Error
	var api smithy.APIError
	if errors.As(err, &known) && errors.Is(err, errNoCredentials) {
		return &cloud.Error{Op: known.Op, Resource: s.URL(), Kind: known.Kind, Err: errNoStoreCredentials}
	}
	if !errors.As(err, &known) || !errors.As(err, &api) {
		return err
	}
	code := api.ErrorCode()
	denied := code == "AccessDenied" || code == "Forbidden" || known.Kind == cloud.KindDenied && statusOf(err) == http.StatusForbidden && advice[code] == "" && kindsOfCodes[code] == 0
	switch {
	case code == "NoSuchBucket":
		return &cloud.Error{Op: known.Op, Resource: known.Resource, Kind: cloud.KindInvalid, Err: &apiError{err: err,
			msg: fmt.Sprintf("there is no bucket %q (NoSuchBucket): create it (aws s3 mb s3://%s) or name another one with --store", s.loc.Bucket, s.loc.Bucket)}}
	case denied:
		what, on := permissions[op], bucketURL(s.loc.Bucket, s.prefix+"*")
		switch op {
		case "list":
			on = bucketURL(s.loc.Bucket, "")
		case "get":
			what += " (and s3:ListBucket, without which S3 refuses to say that an object does not exist)"
		}
		return &cloud.Error{Op: known.Op, Resource: known.Resource, Kind: cloud.KindDenied, Err: &apiError{err: err,
			msg: fmt.Sprintf("access denied (%s): the credentials need %s on %s", code, what, on)}}
	}
	return err
}

// Get reads a whole object.
func (s *Store) Get(ctx context.Context, key string) ([]byte, error) {
	if err := s.begin(ctx, "get", key); err != nil {
		return nil, err
	}
	b, _, err := s.get(ctx, key, "")
	return b, err
}

// get reads an object, or the part of it that a Range header names, and its
// ETag. A connection that breaks is tried again.
func (s *Store) get(ctx context.Context, key, span string) (b []byte, etag string, err error) {
	name := s.prefix + key
	in := &s3.GetObjectInput{Bucket: &s.loc.Bucket, Key: &name}
	if span != "" {
		in.Range = &span
	}
	for try := 1; ; try++ {
		broken := false
		err = s.call(ctx, "get", key, func(c *s3.Client) error {
			out, err := c.GetObject(ctx, in)
			if err != nil {
				return err
			}
			defer out.Body.Close()
			size := aws.ToInt64(out.ContentLength)
			buf := bytes.NewBuffer(make([]byte, 0, max(size, 0)+bytes.MinRead))
			_, err = buf.ReadFrom(out.Body)
			b, etag, broken = buf.Bytes(), aws.ToString(out.ETag), err != nil
			return err
		})
		if err == nil || !broken || try == maxTries || ctx.Err() != nil {
			return b, etag, err
		}
	}
}

// ReadAt reads a part of an object.
func (s *Store) ReadAt(ctx context.Context, key string, p []byte, off int64) (int, error) {
	if err := s.begin(ctx, "read", key); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, &cloud.Error{Op: "read", Resource: s.path(key), Kind: cloud.KindInvalid, Err: fmt.Errorf("negative offset %d", off)}
	}
	if len(p) == 0 {
		return 0, nil
	}
	b, _, err := s.get(ctx, key, fmt.Sprintf("bytes=%d-%d", off, off+int64(len(p))-1))
	if err != nil {
		if behindEnd(err) {
			return 0, io.EOF
		}
		return 0, err
	}
	n := copy(p, b)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// behindEnd says whether a range was refused because the object ends before it.
func behindEnd(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && (api.ErrorCode() == "InvalidRange" || statusOf(err) == http.StatusRequestedRangeNotSatisfiable)
}

// Put writes an object, replacing one that exists.
func (s *Store) Put(ctx context.Context, key string, data []byte) error {
	if err := s.begin(ctx, "put", key); err != nil {
		return err
	}
	name := s.prefix + key
	for try := 1; ; try++ {
		err := s.call(ctx, "put", key, func(c *s3.Client) error {
			_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: &s.loc.Bucket, Key: &name, Body: bytes.NewReader(data)})
			return err
		})
		// A conflict is one with a write or a delete under way, as there is no
		// condition.
		if cloud.KindOf(err) != cloud.KindConflict || try == maxTries {
			return err
		}
		if err := pause(ctx, try); err != nil {
			return err
		}
	}
}

// Create writes an object only if there is none. The answer to a write that
// succeeded can get lost; the SDK then repeats the write and is told that the
// object exists. So a conflict is believed only if the object is not our own,
// which its metadata tells.
func (s *Store) Create(ctx context.Context, key string, data []byte) error {
	if err := s.begin(ctx, "create", key); err != nil {
		return err
	}
	nonce, name := rand.Text(), s.prefix+key
	for try := 1; ; try++ {
		err := s.call(ctx, "create", key, func(c *s3.Client) error {
			_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: &s.loc.Bucket, Key: &name, Body: bytes.NewReader(data),
				IfNoneMatch: aws.String("*"), Metadata: map[string]string{nonceKey: nonce}})
			return err
		})
		if cloud.KindOf(err) != cloud.KindConflict {
			return err
		}
		found := ""
		err = s.call(ctx, "get", key, func(c *s3.Client) error {
			out, err := c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.loc.Bucket, Key: &name})
			if err == nil {
				found = out.Metadata[nonceKey]
			}
			return err
		})
		switch {
		case err == nil && found == nonce:
			return nil
		case err == nil:
			return &cloud.Error{Op: "create", Resource: s.path(key), Kind: cloud.KindConflict, Err: fs.ErrExist}
		case cloud.KindOf(err) != cloud.KindNotFound:
			return err
		case try == maxTries:
			return &cloud.Error{Op: "create", Resource: s.path(key), Kind: cloud.KindConflict, Err: errUnderWay}
		}
		// There is no object: the conflict was with a write or a delete that is
		// under way, which says nothing yet.
		if err := pause(ctx, try); err != nil {
			return err
		}
	}
}

var errUnderWay = errors.New("others are writing or deleting it all the time")

// pause waits a while that grows with the tries.
func pause(ctx context.Context, try int) error {
	t := time.NewTimer(min(10*time.Millisecond<<min(try, 10), 5*time.Second))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
