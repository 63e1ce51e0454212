package software

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/bundle"
	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// packRecord is what is known of a pack.
type packRecord struct {
	Key    string    `json:"key"`
	Size   int64     `json:"size"`
	SHA256 string    `json:"sha256"`
	By     string    `json:"by"`
	At     time.Time `json:"at"`
}

// builder is the claim of a machine that builds. It is rewritten while the
// machine lives.
type builder struct {
	Machine string    `json:"machine"`
	Nonce   string    `json:"nonce"`
	Beat    int       `json:"beat"`
	At      time.Time `json:"at"`
}

// failure is why a builder gave up.
type failure struct {
	What   string `json:"what"`
	Error  string `json:"error"`
	Output string `json:"output"`
}

func (e *ensurer) prefix() string { return "software/" + e.c.ID + "/" + e.place() + "/" }

func builderKey(prefix string, n int) string { return fmt.Sprintf("%sbuilder-%06d", prefix, n) }

func failedKey(prefix string, n int) string { return fmt.Sprintf("%sfailed-%06d", prefix, n) }

// share unpacks the environment if somebody has packed it, waits while
// somebody builds it, and builds it if nobody does.
func (e *ensurer) share(ctx context.Context) error {
	prefix := e.prefix()
	var (
		last  builder   // the claim as it was seen last
		since time.Time // when it was seen to move
		began = 0       // the last builder when the wait began, if it had failed by then
		told  bool
	)
	for first := true; ; first = false {
		rec, err := readPack(ctx, e.c.Store, prefix)
		switch {
		case err == nil && rec.Key == e.bad:
		case err == nil:
			err = e.unpack(ctx, rec)
			if err == nil {
				return nil
			}
			if cloud.KindOf(err) != cloud.KindCorrupt && !gone(err) {
				return err
			}
			// The pack is damaged or was removed: it has to be made again.
			e.c.Log("software: " + err.Error() + ": it has to be built again")
			e.bad = rec.Key
		case !gone(err) && cloud.KindOf(err) != cloud.KindCorrupt:
			return err
		}
		n, claim, err := e.lastBuilder(ctx, prefix)
		if err != nil {
			return err
		}
		// Who made a pack that is damaged has done with it.
		failed := e.bad != "" && e.bad == packKey(prefix, claim)
		if n > 0 {
			f, err := readJSON[failure](ctx, e.c.Store, failedKey(prefix, n))
			switch {
			case err == nil && first:
				// It failed before: by now it may work.
				began, failed = n, true
			case err == nil && n > began:
				return &InstallError{What: f.What + " (on " + claim.Machine + ")", Err: errors.New(f.Error), Output: f.Output}
			case err == nil:
				failed = true
			case !gone(err):
				return err
			}
		}
		if claim != last {
			last, since = claim, time.Now()
		}
		if n == 0 || failed || time.Since(since) >= e.c.pace.dead {
			done, err := e.build(ctx, prefix, n+1)
			if err != nil || done {
				return err
			}
			continue // somebody else was first
		}
		if !told {
			told = true
			e.c.Log("software: waiting for " + claim.Machine + ", which builds it")
		}
		if err := sleep(ctx, e.c.pace.look); err != nil {
			return err
		}
	}
}

// lastBuilder is the last machine that tried to build; n is 0 if none did.
func (e *ensurer) lastBuilder(ctx context.Context, prefix string) (n int, claim builder, err error) {
	err = e.c.Store.List(ctx, prefix+"builder-", func(o cloud.ObjectInfo) bool {
		if i, err := strconv.Atoi(strings.TrimPrefix(o.Key, prefix+"builder-")); err == nil {
			n = max(n, i)
		}
		return true
	})
	if err != nil || n == 0 {
		return 0, builder{}, err
	}
	claim, err = readJSON[builder](ctx, e.c.Store, builderKey(prefix, n))
	if gone(err) {
		return n, builder{}, nil
	}
	return n, claim, err
}

// build is the nth try to build the environment and pack it. done is false if
// another machine has taken it.
func (e *ensurer) build(ctx context.Context, prefix string, n int) (done bool, err error) {
	claim := builder{Machine: e.c.Machine, Nonce: nonce(), At: time.Now().UTC()}
	key := builderKey(prefix, n)
	if err := e.c.Store.Create(ctx, key, mustJSON(claim)); err != nil {
		if !taken(err) {
			return false, err
		}
		// A reply that was lost leaves our own claim.
		have, err := readJSON[builder](ctx, e.c.Store, key)
		if err != nil || have.Nonce != claim.Nonce {
			if gone(err) {
				err = nil
			}
			return false, err
		}
	}
	stop := e.refresh(ctx, key, claim)
	defer stop()
	e.c.Log("software: building the environment")
	if err := e.clear(); err != nil {
		return false, err
	}
	if err := e.install(ctx); err != nil {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		f := failure{What: "build the environment", Error: err.Error()}
		var ie *InstallError
		if errors.As(err, &ie) {
			f = failure{What: ie.What, Error: ie.Err.Error(), Output: ie.Output}
		}
		if perr := e.c.Store.Put(ctx, failedKey(prefix, n), mustJSON(f)); perr != nil {
			e.c.Log("software: tell the others that it failed: " + perr.Error())
		}
		return false, err
	}
	if err := e.finish(); err != nil {
		return false, err
	}
	e.out.Built = true
	// The environment is good here even if nobody else can have it.
	if err := e.pack(ctx, prefix, claim); err != nil {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		e.c.Log("software: pack the environment for other machines: " + err.Error())
		f := failure{What: "pack the environment", Error: err.Error()}
		_ = e.c.Store.Put(ctx, failedKey(prefix, n), mustJSON(f)) // if not: the claim stops moving
	}
	return true, nil
}

// refresh rewrites the claim until stop is called.
func (e *ensurer) refresh(ctx context.Context, key string, claim builder) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sleep(ctx, e.c.pace.refresh) == nil {
			claim.Beat++
			claim.At = time.Now().UTC()
			if err := e.c.Store.Put(ctx, key, mustJSON(claim)); err != nil && ctx.Err() == nil {
				e.c.Log("software: " + err.Error())
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// pack stores the environment, and says where.
func (e *ensurer) pack(ctx context.Context, prefix string, claim builder) error {
	rec := packRecord{Key: packKey(prefix, claim), By: e.c.Machine, At: time.Now().UTC()}
	pr, pw := io.Pipe()
	h := sha256.New()
	count := &counter{}
	done := make(chan error, 1)
	go func() {
		err := writeArchive(ctx, io.MultiWriter(pw, h, count), e.home)
		_ = pw.CloseWithError(err)
		done <- err
	}()
	err := e.c.Store.PutFrom(ctx, rec.Key, pr)
	_ = pr.CloseWithError(errors.Join(err, io.ErrClosedPipe))
	if werr := <-done; err == nil {
		err = werr
	}
	if err != nil {
		return err
	}
	rec.Size, rec.SHA256 = count.n, hex.EncodeToString(h.Sum(nil))
	err = e.c.Store.Create(ctx, prefix+"pack.json", mustJSON(rec))
	if !taken(err) {
		return err
	}
	have, err := readPack(ctx, e.c.Store, prefix)
	if err == nil && e.bad != "" && have.Key == e.bad || cloud.KindOf(err) == cloud.KindCorrupt {
		return e.c.Store.Put(ctx, prefix+"pack.json", mustJSON(rec))
	}
	// Whoever was first: both are good. Ours is of no use then, and Collect
	// removes it: machines may not delete.
	return err
}

// packKey is where the pack of a builder lies.
func packKey(prefix string, b builder) string { return prefix + "pack-" + b.Nonce }

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

func readPack(ctx context.Context, store cloud.Store, prefix string) (packRecord, error) {
	rec, err := readJSON[packRecord](ctx, store, prefix+"pack.json")
	if err == nil && (!strings.HasPrefix(rec.Key, prefix+"pack-") || rec.Size < 0) {
		err = &cloud.Error{Op: "read", Resource: prefix + "pack.json", Kind: cloud.KindCorrupt, Err: errors.New("names no pack")}
	}
	return rec, err
}

// unpack brings a pack here. It gets its name when its hash was right.
func (e *ensurer) unpack(ctx context.Context, rec packRecord) error {
	e.c.Log("software: unpacking the environment that " + rec.By + " built")
	e.touch(ctx, rec)
	if err := e.clear(); err != nil {
		return err
	}
	next := e.home + ".new"
	if err := os.RemoveAll(next); err != nil {
		return fmt.Errorf("software: %w", err)
	}
	if err := os.MkdirAll(next, 0o755); err != nil {
		return fmt.Errorf("software: %w", err)
	}
	defer func() { _ = os.RemoveAll(next) }()
	src := bundle.Open(ctx, e.c.Store, rec.Key, rec.Size)
	defer func() { _ = src.Close() }()
	h := sha256.New()
	r := io.TeeReader(src, h)
	err := readArchive(ctx, r, next)
	if err == nil || cloud.KindOf(err) == cloud.KindCorrupt {
		// What is wrong with an archive whose hash is wrong does not matter.
		if _, cerr := io.Copy(io.Discard, r); cerr != nil {
			return cerr
		}
		if hex.EncodeToString(h.Sum(nil)) != rec.SHA256 {
			return &cloud.Error{Op: "check", Resource: rec.Key, Kind: cloud.KindCorrupt, Err: errors.New("does not have the hash it was stored with")}
		}
	}
	if err != nil {
		return err
	}
	if err := os.Rename(next, e.home); err != nil {
		return fmt.Errorf("software: %w", err)
	}
	if _, err := os.Stat(e.python()); err != nil {
		return &cloud.Error{Op: "unpack", Resource: rec.Key, Kind: cloud.KindCorrupt, Err: fmt.Errorf("its interpreter does not work here: %w", err)}
	}
	e.out.Unpacked = true
	return e.finish()
}

func readJSON[T any](ctx context.Context, store cloud.Store, key string) (v T, err error) {
	b, err := store.Get(ctx, key)
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return v, &cloud.Error{Op: "read", Resource: key, Kind: cloud.KindCorrupt, Err: err}
	}
	return v, nil
}

// mustJSON encodes a struct of plain fields, which cannot fail.
func mustJSON(v any) []byte {
	b, _ := json.Marshal(v)
	return b
}

func nonce() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
