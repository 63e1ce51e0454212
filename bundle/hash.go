package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"
)

// stamp is what changes when a file is written.
type stamp struct {
	size, mtime, ctime int64
	inode              uint64
}

type cached struct {
	stamp
	sum [sha256.Size]byte
}

// hashCache remembers the hashes of files that have not changed since. It is a
// file of its own for each folder, and only a shortcut: without it files are
// read.
type hashCache struct {
	file  string // "": nothing is kept
	old   map[string]cached
	mu    sync.Mutex
	now   map[string]cached // what was asked for this time
	dirty bool
}

const hashCacheMagic = "coiled-jobs hashes 1\n"

// settling is how long a file must be left alone to be remembered: one that
// has just been written could change again within the resolution of its times.
const settling = 2 * time.Second

func openHashCache(folder, dir string) *hashCache {
	if folder == "" {
		return openHashCacheFile("")
	}
	sum := sha256.Sum256([]byte(dir))
	return openHashCacheFile(filepath.Join(folder, "hashes", hex.EncodeToString(sum[:8])))
}

func openHashCacheFile(name string) *hashCache {
	c := &hashCache{file: name, old: map[string]cached{}, now: map[string]cached{}}
	if name == "" {
		return c
	}
	b, err := os.ReadFile(c.file)
	if err != nil {
		return c
	}
	// The last bytes are a checksum: a damaged file could lie.
	if len(b) < len(hashCacheMagic)+sha256.Size || string(b[:len(hashCacheMagic)]) != hashCacheMagic {
		return c
	}
	body, check := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], check) {
		return c
	}
	body = body[len(hashCacheMagic):]
	for len(body) > 0 {
		n, w := binary.Uvarint(body)
		const rest = 4*8 + sha256.Size
		if w <= 0 || n > uint64(len(body)) || len(body)-w < int(n)+rest {
			break
		}
		name := string(body[w : w+int(n)])
		body = body[w+int(n):]
		e := cached{stamp: stamp{
			size:  int64(binary.LittleEndian.Uint64(body)),
			mtime: int64(binary.LittleEndian.Uint64(body[8:])),
			ctime: int64(binary.LittleEndian.Uint64(body[16:])),
			inode: binary.LittleEndian.Uint64(body[24:]),
		}}
		copy(e.sum[:], body[32:])
		body = body[rest:]
		c.old[name] = e
	}
	return c
}

// maxCached is how many files a cache remembers at most.
const maxCached = 1 << 20

// save keeps what is known. A cache that cannot be written is no error.
func (c *hashCache) save() {
	if c.file == "" || !c.dirty {
		return
	}
	// Others may have been asked for by another pipeline in the same folder.
	for name, e := range c.old {
		if _, ok := c.now[name]; !ok && len(c.now) < maxCached {
			c.now[name] = e
		}
	}
	b := []byte(hashCacheMagic)
	for name, e := range c.now {
		b = binary.AppendUvarint(b, uint64(len(name)))
		b = append(b, name...)
		b = binary.LittleEndian.AppendUint64(b, uint64(e.size))
		b = binary.LittleEndian.AppendUint64(b, uint64(e.mtime))
		b = binary.LittleEndian.AppendUint64(b, uint64(e.ctime))
		b = binary.LittleEndian.AppendUint64(b, e.inode)
		b = append(b, e.sum[:]...)
	}
	sum := sha256.Sum256(b)
	writeCache(c.file, append(b, sum[:]...))
}

// writeCache replaces a file of the cache folder, if it can.
func writeCache(name string, b []byte) {
	if os.MkdirAll(filepath.Dir(name), 0o700) != nil {
		return
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".new-")
	if err != nil {
		return
	}
	_, err = f.Write(b)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
}

// hash is the sha256 of a file below dir, in hex, and its size when it was
// read. now is how it was seen a moment ago.
func (c *hashCache) hash(dir, p string, now stamp) (sum string, size int64, err error) {
	name := filepath.Join(dir, filepath.FromSlash(p))
	e := cached{stamp: now}
	if old, ok := c.old[p]; ok && old.stamp == e.stamp {
		c.keep(p, old, false)
		return hex.EncodeToString(old.sum[:]), old.size, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return "", 0, err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return "", 0, fmt.Errorf("read %s: %w", name, err)
	}
	h.Sum(e.sum[:0])
	after, err := f.Stat()
	if err == nil && stampOf(after) == e.stamp && n == e.size &&
		time.Since(time.Unix(0, max(e.mtime, e.ctime))) > settling {
		c.keep(p, e, true)
	}
	return hex.EncodeToString(e.sum[:]), n, nil
}

func (c *hashCache) keep(p string, e cached, fresh bool) {
	c.mu.Lock()
	c.now[p] = e
	c.dirty = c.dirty || fresh
	c.mu.Unlock()
}

// hashAll sets the hashes of entries.
func (c *hashCache) hashAll(ctx context.Context, dir string, list []Entry) error {
	return parallel(ctx, 2*runtime.GOMAXPROCS(0), len(list), func(ctx context.Context, i int) error {
		e := &list[i]
		if e.Link != "" {
			return nil
		}
		sum, size, err := c.hash(dir, e.Path, e.stamp)
		if err != nil {
			return fmt.Errorf("file that travels with the work: %w", err)
		}
		e.Hash, e.Size = sum, size
		return nil
	})
}

// parallel calls do for 0 to n-1, several at a time, and returns the first
// error; nothing new starts after it.
func parallel(ctx context.Context, width, n int, do func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(width, n) {
		wg.Go(func() {
			for i := range next {
				if err := do(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
feed:
	for i := range n {
		select {
		case next <- i:
		case <-ctx.Done():
			break feed
		}
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}
