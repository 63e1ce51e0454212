package aws

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// pageQuery asks for a page of a listing: keys that start with prefix and are
// greater than after, or those behind token.
type pageQuery struct {
	prefix, after, token string
	folders              bool // what lies below a further "/" as one folder
}

// page is the answer: objects and folders in the order of their names, each
// by itself.
type page struct {
	objects []cloud.S3Object
	folders []string
	token   string // of the next page; "": this is the last
}

// page fetches a page.
func (s *S3) page(ctx context.Context, loc cloud.S3Location, q pageQuery) (*page, error) {
	in := &s3.ListObjectsV2Input{Bucket: &loc.Bucket, EncodingType: types.EncodingTypeUrl, RequestPayer: payer(loc)}
	if q.prefix != "" {
		in.Prefix = &q.prefix
	}
	if q.folders {
		in.Delimiter = aws.String("/")
	}
	switch {
	case q.token != "":
		in.ContinuationToken = &q.token
	case q.after != "":
		in.StartAfter = &q.after
	}
	var p *page
	err := s.call(ctx, loc, "list", bucketURL(loc.Bucket, q.prefix), func(c *s3.Client) error {
		_, err := c.ListObjectsV2(ctx, in, func(o *s3.Options) {
			o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error { return readPagesInto(stack, &p) })
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// readPagesInto makes the SDK leave successful answers to parsePage: its own
// XML decoder takes several milliseconds and ten thousand allocations a page.
func readPagesInto(stack *middleware.Stack, to **page) error {
	const id = "OperationDeserializer"
	sdk, ok := stack.Deserialize.Get(id)
	if !ok {
		return errors.New("the SDK has no " + id)
	}
	_, err := stack.Deserialize.Swap(id, &pageReader{sdk: sdk, to: to})
	return err
}

type pageReader struct {
	sdk middleware.DeserializeMiddleware
	to  **page
}

func (r *pageReader) ID() string { return r.sdk.ID() }

func (r *pageReader) HandleDeserialize(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (
	out middleware.DeserializeOutput, metadata middleware.Metadata, err error,
) {
	out, metadata, err = next.HandleDeserialize(ctx, in)
	resp, ok := out.RawResponse.(*smithyhttp.Response)
	if err != nil || !ok || resp.StatusCode/100 != 2 {
		return r.sdk.HandleDeserialize(ctx, in, answered{out, metadata, err})
	}
	defer resp.Body.Close()
	buf := bodies.Get().(*bytes.Buffer)
	defer bodies.Put(buf)
	buf.Reset()
	if _, err := buf.ReadFrom(resp.Body); err != nil {
		// As a connection error it is tried again.
		return out, metadata, &smithyhttp.RequestSendError{Err: fmt.Errorf("read a page: %w", err)}
	}
	p, err := parsePage(buf.Bytes())
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return out, metadata, &smithyhttp.RequestSendError{Err: err}
	}
	if err != nil {
		return out, metadata, err
	}
	*r.to = p
	out.Result = &s3.ListObjectsV2Output{}
	return out, metadata, nil
}

var bodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// answered is a handler that already has its answer.
type answered struct {
	out      middleware.DeserializeOutput
	metadata middleware.Metadata
	err      error
}

func (a answered) HandleDeserialize(context.Context, middleware.DeserializeInput) (middleware.DeserializeOutput, middleware.Metadata, error) {
	return a.out, a.metadata, a.err
}

var errNoListing = errors.New("the answer is not a listing of S3: is the endpoint an S3 server?")

// parsePage reads a ListBucketResult. It knows as much XML as S3 servers
// write: elements, character references, nothing else. Strings are cut from
// one text, so that a page is a few allocations.
func parsePage(b []byte) (*page, error) {
	p := &page{objects: make([]cloud.S3Object, 0, 1000)}
	type span struct{ from, to int }
	var (
		text    []byte // decoded keys and etags
		keys    []span // of objects
		etags   []span
		folders []span
		inside  place
		encoded bool
		more    bool
		root    bool
		ended   bool
	)
	add := func(content []byte) span {
		from := len(text)
		if bytes.IndexByte(content, '&') >= 0 {
			text = unescapeXML(text, content)
		} else {
			text = append(text, content...)
		}
		return span{from, len(text)}
	}
	for {
		i := bytes.IndexByte(b, '<')
		if i < 0 {
			break
		}
		j := bytes.IndexByte(b[i:], '>')
		if j < 0 {
			return nil, io.ErrUnexpectedEOF
		}
		tag := b[i+1 : i+j]
		b = b[i+j+1:]
		if len(tag) == 0 || tag[0] == '?' || tag[0] == '!' {
			continue
		}
		if tag[0] == '/' {
			switch string(tag[1:]) {
			case "Contents", "CommonPrefixes":
				inside = top
			case "ListBucketResult":
				ended = true
			}
			continue
		}
		if k := nameEnd(tag); k < len(tag) {
			if tag[len(tag)-1] == '/' && string(tag[:k]) != "ListBucketResult" {
				continue // empty
			}
			tag = tag[:k]
		}
		content := b
		if k := bytes.IndexByte(b, '<'); k >= 0 {
			content = b[:k]
		}
		switch inside {
		case top:
			switch string(tag) {
			case "ListBucketResult":
				root = true
			case "Contents":
				inside = contents
				p.objects = append(p.objects, cloud.S3Object{})
				keys, etags = append(keys, span{}), append(etags, span{})
			case "CommonPrefixes":
				inside = commonPrefixes
			case "EncodingType":
				encoded = string(content) == "url"
			case "IsTruncated":
				more = string(content) == "true"
			case "NextContinuationToken":
				p.token = string(unescapeXML(nil, content))
			}
		case contents:
			switch string(tag) {
			case "Key":
				keys[len(keys)-1] = add(content)
			case "ETag":
				etags[len(etags)-1] = add(content)
			case "Size":
				n, err := strconv.ParseInt(string(content), 10, 64)
				if err != nil {
					return nil, fmt.Errorf("size %q in a listing", content)
				}
				p.objects[len(p.objects)-1].Size = n
			case "LastModified":
				p.objects[len(p.objects)-1].Modified = parseTime(content)
			}
		case commonPrefixes:
			if string(tag) == "Prefix" {
				folders = append(folders, add(content))
			}
		}
	}
	switch {
	case !root:
		return nil, errNoListing
	case !ended:
		return nil, io.ErrUnexpectedEOF
	case more && p.token == "":
		return nil, errors.New("a listing that goes on has no token")
	case !more:
		p.token = ""
	}
	if encoded {
		// Decoding only shortens, so the text is decoded into itself.
		for _, list := range [][]span{keys, folders} {
			for i, s := range list {
				n, ok := unescapeURL(text[s.from:s.to])
				if !ok {
					return nil, fmt.Errorf("key %q in a listing is not encoded as it says", text[s.from:s.to])
				}
				list[i].to = s.from + n
			}
		}
	}
	all := string(text)
	for i := range p.objects {
		o := &p.objects[i]
		o.Key = all[keys[i].from:keys[i].to]
		o.ETag = strings.Trim(all[etags[i].from:etags[i].to], `"`)
	}
	for _, s := range folders {
		p.folders = append(p.folders, all[s.from:s.to])
	}
	return p, nil
}

// place is where in the document the parser is.
type place uint8

const (
	top place = iota
	contents
	commonPrefixes
)

// nameEnd is the length of a tag's name.
func nameEnd(tag []byte) int {
	for i, c := range tag {
		if c == ' ' || c == '/' || c == '\t' || c == '\r' || c == '\n' {
			return i
		}
	}
	return len(tag)
}

// unescapeURL decodes text in place; it returns the new length.
func unescapeURL(b []byte) (int, bool) {
	n := 0
	for i := 0; i < len(b); i++ {
		c := b[i]
		switch {
		case c == '+':
			c = ' '
		case c == '%':
			if i+2 >= len(b) {
				return 0, false
			}
			hi, lo := unhex(b[i+1]), unhex(b[i+2])
			if hi > 15 || lo > 15 {
				return 0, false
			}
			c = hi<<4 | lo
			i += 2
		}
		b[n] = c
		n++
	}
	return n, true
}

func unhex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}

// parseTime reads the one form of time that S3 writes, and others slowly.
func parseTime(b []byte) time.Time {
	num := func(from, to int) int {
		n := 0
		for _, c := range b[from:to] {
			if c < '0' || c > '9' {
				return -1 << 20
			}
			n = n*10 + int(c-'0')
		}
		return n
	}
	if len(b) == len("2009-10-12T17:50:30.000Z") && b[10] == 'T' && b[19] == '.' && b[23] == 'Z' {
		y, mo, d := num(0, 4), num(5, 7), num(8, 10)
		h, mi, s, ms := num(11, 13), num(14, 16), num(17, 19), num(20, 23)
		if y >= 0 && mo > 0 && d > 0 && h >= 0 && mi >= 0 && s >= 0 && ms >= 0 {
			return time.Date(y, time.Month(mo), d, h, mi, s, ms*1e6, time.UTC)
		}
	}
	t, err := time.Parse(time.RFC3339Nano, string(b))
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}

// unescapeXML appends text with its character references resolved.
func unescapeXML(dst, src []byte) []byte {
	for len(src) > 0 {
		i := bytes.IndexByte(src, '&')
		if i < 0 {
			break
		}
		dst = append(dst, src[:i]...)
		src = src[i:]
		end := bytes.IndexByte(src, ';')
		if end < 0 {
			break
		}
		name := string(src[1:end])
		switch name {
		case "amp":
			dst = append(dst, '&')
		case "lt":
			dst = append(dst, '<')
		case "gt":
			dst = append(dst, '>')
		case "quot":
			dst = append(dst, '"')
		case "apos":
			dst = append(dst, '\'')
		default:
			var n uint64
			err := strconv.ErrSyntax
			if h, ok := strings.CutPrefix(name, "#x"); ok {
				n, err = strconv.ParseUint(h, 16, 32)
			} else if d, ok := strings.CutPrefix(name, "#"); ok {
				n, err = strconv.ParseUint(d, 10, 32)
			}
			if err != nil {
				dst = append(dst, src[:end+1]...)
			} else {
				dst = utf8.AppendRune(dst, rune(n))
			}
		}
		src = src[end+1:]
	}
	return append(dst, src...)
}
