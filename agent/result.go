//go:build unix

package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"unicode/utf8"

	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
	"github.com/coiled-jobs/coiled-jobs/value"
)

// inlineResult is how large a result may be to travel with its outcome.
const inlineResult = 256 << 10

// readResult reads the file that a program wrote its result to and removes it.
// Nil without an error: there is none.
func readResult(path string) ([]byte, error) {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err == syscall.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the result from $COILED_JOBS_RESULT: %w (it must be a file)", err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("what lies at $COILED_JOBS_RESULT is not a file")
	}
	if info.Size() > maxResult {
		return nil, tooLarge(info.Size())
	}
	b := make([]byte, info.Size())
	n, err := io.ReadFull(f, b)
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		return nil, err
	}
	return b[:n], syscall.Unlink(path)
}

func tooLarge(n int64) error {
	return fmt.Errorf("the result has %d bytes, more than %d: write it to a file and declare that in outputs", n, maxResult)
}

// fileResult is the result in the JSON that a program wrote, or else as text
// without its last newline.
func fileResult(b []byte) []byte {
	if out, ok := compactJSON(b); ok {
		return out
	}
	if n := len(b); n > 0 && b[n-1] == '\n' {
		b = b[:n-1]
		if n := len(b); n > 0 && b[n-1] == '\r' {
			b = b[:n-1]
		}
	}
	return value.JSON(string(b))
}

// stdoutResult makes the result from what was printed.
func stdoutResult(mode spec.ResultMode, b []byte) ([]byte, error) {
	if mode == spec.ResultStdout {
		return value.JSON(string(bytes.TrimSpace(b))), nil
	}
	out, ok := compactJSON(b)
	if ok {
		return out, nil
	}
	err := value.Valid(b)
	if len(bytes.TrimSpace(b)) == 0 {
		err = errors.New("nothing was printed")
	}
	return nil, fmt.Errorf("standard output is not JSON (result: json): %w", err)
}

// compactJSON removes the space between the tokens of a JSON document; false
// if it is not one.
func compactJSON(b []byte) ([]byte, bool) {
	if value.Valid(b) != nil {
		return nil, false
	}
	if !utf8.Valid(b) {
		v, err := value.DecodeOrdered(b)
		if err != nil {
			return nil, false
		}
		return value.JSON(v), true
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		switch c := b[i]; c {
		case ' ', '\t', '\r', '\n':
		case '"':
			from := i
			for i++; b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
			out = append(out, b[from:i+1]...)
		default:
			out = append(out, c)
		}
	}
	return out, true
}

// keepResult puts a result into its outcome, or into the store if it is large.
func (a *Agent) keepResult(ctx context.Context, o *task.Outcome, fn string, result []byte) error {
	if len(result) == 0 || string(result) == "null" {
		return nil
	}
	if len(result) <= inlineResult {
		o.Result = result
		return nil
	}
	key := fmt.Sprintf("%s/results/%s/%d-%d", a.run.Prefix, fn, o.Index, o.Attempt)
	if err := a.run.Store.PutFrom(ctx, key, bytes.NewReader(result)); err != nil {
		return fmt.Errorf("keep the result: %w", err)
	}
	o.ResultAt = task.Span{Key: key, Len: int64(len(result))}
	return nil
}
