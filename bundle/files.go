package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// filesPerChunk is how many files one object of an index names.
const filesPerChunk = 4096

// filesRoot is the object that an index begins with.
type filesRoot struct {
	Version int          `json:"version"`
	Count   int          `json:"count"`
	Bytes   int64        `json:"bytes"`
	Chunks  []filesChunk `json:"chunks"`
}

type filesChunk struct {
	Hash  string `json:"hash"`  // of the object, under files/index/
	First text   `json:"first"` // path
}

func rootKey(hash string) string { return indexPrefix + hash + ".json" }

// PushFiles stores local files that maps fan out over, once per content, and
// returns the key under which machines find them (OpenFiles). paths are
// relative to dir, in any order; links are followed, since what they lead to is
// the item. Pushing the same files again sends nothing.
func PushFiles(ctx context.Context, store cloud.Store, dir string, paths []string, opts Options) (key string, stats *PushStats, err error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", nil, err
	}
	list, err := fileEntries(abs, paths)
	if err != nil {
		return "", nil, err
	}
	cache := openHashCache(opts.CacheDir, abs+"\x00items")
	if err := cache.hashAll(ctx, abs, list); err != nil {
		return "", nil, err
	}
	cache.save()
	stats = &PushStats{Files: len(list)}
	for i := range list {
		stats.Bytes += list[i].Size
	}
	root, chunks, err := makeIndex(list)
	if err != nil {
		return "", nil, err
	}
	sum := sha256.Sum256(root)
	key = rootKey(hex.EncodeToString(sum[:]))
	age, there, err := ageOf(ctx, store, key)
	switch {
	case err != nil:
		return "", nil, err
	case there && age < refreshed:
		stats.Unchanged = true
		return key, stats, nil
	case there && age < trusted:
		stats.Unchanged = true
		return key, stats, store.Put(ctx, key, root) // young again
	}
	if err := sendFiles(ctx, store, abs, list, opts.Name, stats); err != nil {
		return "", nil, err
	}
	err = parallel(ctx, 16, len(chunks), func(ctx context.Context, i int) error {
		sum := sha256.Sum256(chunks[i])
		return store.Put(ctx, indexPrefix+hex.EncodeToString(sum[:]), chunks[i])
	})
	if err == nil {
		err = store.Put(ctx, key, root)
	}
	if err == nil {
		err = store.Put(ctx, latestFilesKey(opts.Name), []byte(key))
	}
	return key, stats, err
}

// fileEntries looks at the files, in the order of their paths.
func fileEntries(dir string, paths []string) ([]Entry, error) {
	paths = slices.Clone(paths)
	slices.Sort(paths)
	paths = slices.Compact(paths)
	list := make([]Entry, len(paths))
	for i, p := range paths {
		if !localPath(p) {
			return nil, fmt.Errorf("item %s: only files below the folder of the pipeline file travel to machines", printable(p))
		}
		info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(p)))
		if err != nil {
			return nil, fmt.Errorf("item: %w", err)
		}
		if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("item %s is not a file", printable(p))
		}
		list[i] = Entry{Path: p, Mode: info.Mode() & fs.ModePerm, Size: info.Size(), stamp: stampOf(info)}
	}
	return list, nil
}

// makeIndex encodes what machines look up.
func makeIndex(list []Entry) (root []byte, chunks [][]byte, err error) {
	r := filesRoot{Version: storedVersion, Count: len(list)}
	enc := encoders.Get().(*zstd.Encoder)
	defer encoders.Put(enc)
	for part := range slices.Chunk(list, filesPerChunk) {
		files := make([]storedFile, len(part))
		for i, e := range part {
			r.Bytes += e.Size
			files[i] = storedFile{Path: text(e.Path), Mode: e.Mode, Size: e.Size, Hash: e.Hash}
		}
		b, err := json.Marshal(files)
		if err != nil {
			return nil, nil, err
		}
		b = enc.EncodeAll(b, nil)
		sum := sha256.Sum256(b)
		r.Chunks = append(r.Chunks, filesChunk{Hash: hex.EncodeToString(sum[:]), First: files[0].Path})
		chunks = append(chunks, b)
	}
	root, err = json.Marshal(r)
	return root, chunks, err
}

func ageOf(ctx context.Context, store cloud.Store, key string) (age time.Duration, there bool, err error) {
	err = store.List(ctx, key, func(o cloud.ObjectInfo) bool {
		if o.Key == key {
			age, there = time.Since(o.Modified), true
		}
		return false
	})
	return age, there, err
}

func latestFilesKey(name string) string {
	sum := sha256.Sum256([]byte(name))
	return latestPrefix + hex.EncodeToString(sum[:8]) + "-files"
}

// sendFiles stores the contents that the store does not have.
func sendFiles(ctx context.Context, store cloud.Store, dir string, list []Entry, name string, stats *PushStats) error {
	known, err := knownFiles(ctx, store, name)
	if err != nil {
		return err
	}
	var todo []*Entry
	for i := range list {
		if !known[list[i].Hash] {
			known[list[i].Hash] = true
			todo = append(todo, &list[i])
		}
	}
	var mu sync.Mutex
	// Large ones by themselves: each takes several connections and buffers.
	large := make(chan struct{}, 4)
	return parallel(ctx, 64, len(todo), func(ctx context.Context, i int) error {
		e := todo[i]
		there, err := young(ctx, store, fileKey(e.Hash))
		if err != nil || there {
			return err
		}
		if e.Size > smallFile {
			select {
			case large <- struct{}{}:
				defer func() { <-large }()
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if err := sendFile(ctx, store, dir, e); err != nil {
			return fmt.Errorf("item %s: %w", printable(e.Path), err)
		}
		mu.Lock()
		defer mu.Unlock()
		stats.SentObjects++
		stats.SentFiles++
		stats.SentBytes += e.Size
		stats.StoredBytes += e.Size
		return nil
	})
}

// knownFiles is the contents of the last index of this name, if it is young.
func knownFiles(ctx context.Context, store cloud.Store, name string) (map[string]bool, error) {
	known := map[string]bool{}
	b, err := store.Get(ctx, latestFilesKey(name))
	if err != nil {
		if cloud.KindOf(err) == cloud.KindNotFound {
			err = nil
		}
		return known, err
	}
	key := string(b)
	age, there, err := ageOf(ctx, store, key)
	if err != nil || !there || age > trusted {
		return known, err
	}
	f, err := OpenFiles(ctx, store, key)
	if err != nil {
		return known, nil //nolint:nilerr // only a hint
	}
	for i := range f.root.Chunks {
		list, err := f.chunk(ctx, i)
		if err != nil {
			return known, nil //nolint:nilerr // likewise
		}
		for j := range list {
			known[list[j].Hash] = true
		}
	}
	return known, nil
}

// Files are the items that PushFiles stored. Its methods are safe for
// concurrent use.
type Files struct {
	store cloud.Store
	root  filesRoot

	mu     sync.Mutex
	chunks map[int][]storedFile
	recent []int                  // chunks, the last one used last
	busy   map[string]*sync.Mutex // by path
	placed map[string]stamp       // what Place wrote
}

// maxChunks is how many parts of an index are kept in memory.
const maxChunks = 16

// OpenFiles reads an index that PushFiles made.
func OpenFiles(ctx context.Context, store cloud.Store, key string) (*Files, error) {
	hash, ok := strings.CutPrefix(key, indexPrefix)
	hash, ok2 := strings.CutSuffix(hash, ".json")
	if !ok || !ok2 || !isHash(hash) {
		return nil, &cloud.Error{Op: "read", Resource: key, Kind: cloud.KindInvalid, Err: errors.New("is not the key of an index of files")}
	}
	b, err := store.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	f := &Files{store: store, chunks: map[int][]storedFile{}, busy: map[string]*sync.Mutex{}, placed: map[string]stamp{}}
	if err := decodeChecked(key, hash, b, &f.root); err != nil {
		return nil, err
	}
	for i, c := range f.root.Chunks {
		if !isHash(c.Hash) || i > 0 && c.First <= f.root.Chunks[i-1].First {
			return nil, &cloud.Error{Op: "read", Resource: key, Kind: cloud.KindCorrupt, Err: errors.New("its parts are not in order")}
		}
	}
	return f, nil
}

func decodeChecked(key, hash string, b []byte, v any) error {
	sum := sha256.Sum256(b)
	err := errors.New("its content does not have the hash in its name")
	if hex.EncodeToString(sum[:]) == hash {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return &cloud.Error{Op: "read", Resource: key, Kind: cloud.KindCorrupt, Err: err}
	}
	return nil
}

// Count and Bytes are those of all files.
func (f *Files) Count() int { return f.root.Count }

// Bytes is the size of all files.
func (f *Files) Bytes() int64 { return f.root.Bytes }

// chunk reads a part of the index.
func (f *Files) chunk(ctx context.Context, i int) ([]storedFile, error) {
	f.mu.Lock()
	if list, ok := f.chunks[i]; ok {
		f.recent = append(slices.DeleteFunc(f.recent, func(k int) bool { return k == i }), i)
		f.mu.Unlock()
		return list, nil
	}
	f.mu.Unlock()
	key := indexPrefix + f.root.Chunks[i].Hash
	b, err := f.store.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	corrupt := func(err error) error {
		return &cloud.Error{Op: "read", Resource: key, Kind: cloud.KindCorrupt, Err: err}
	}
	if hex.EncodeToString(sum[:]) != f.root.Chunks[i].Hash {
		return nil, corrupt(errors.New("its content does not have the hash in its name"))
	}
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(1<<30))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var list []storedFile
	if b, err = d.DecodeAll(b, nil); err == nil {
		err = json.Unmarshal(b, &list)
	}
	if err != nil {
		return nil, corrupt(err)
	}
	for j := range list {
		e := list[j].entry()
		if err := checkEntry(&e, map[string]bool{}); err != nil || e.Link != "" {
			return nil, corrupt(errors.Join(err, fmt.Errorf("%q is no file", e.Path)))
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.chunks[i]; !ok {
		f.chunks[i] = list
		f.recent = append(f.recent, i)
		if len(f.recent) > maxChunks {
			delete(f.chunks, f.recent[0])
			f.recent = f.recent[1:]
		}
	}
	return list, nil
}

// find looks up a path.
func (f *Files) find(ctx context.Context, p string) (*storedFile, error) {
	i, exact := slices.BinarySearchFunc(f.root.Chunks, p, func(c filesChunk, p string) int { return strings.Compare(string(c.First), p) })
	if !exact {
		i--
	}
	if i >= 0 {
		list, err := f.chunk(ctx, i)
		if err != nil {
			return nil, err
		}
		if j, ok := slices.BinarySearchFunc(list, p, func(s storedFile, p string) int { return strings.Compare(string(s.Path), p) }); ok {
			return &list[j], nil
		}
	}
	return nil, &cloud.Error{Op: "find", Resource: "item " + printable(p), Kind: cloud.KindNotFound}
}

// Has says whether a path is one of the files.
func (f *Files) Has(ctx context.Context, p string) (bool, error) {
	_, err := f.find(ctx, p)
	if cloud.KindOf(err) == cloud.KindNotFound {
		return false, nil
	}
	return err == nil, err
}

// Place makes sure that a file lies at its path below dir, with the content it
// had when it was pushed, whatever a task may have done to it. It is in place
// at once or not at all.
func (f *Files) Place(ctx context.Context, dir, p string) error {
	e, err := f.find(ctx, p)
	if err != nil {
		return err
	}
	f.mu.Lock()
	lock := f.busy[p]
	if lock == nil {
		lock = &sync.Mutex{}
		f.busy[p] = lock
	}
	f.mu.Unlock()
	lock.Lock()
	defer lock.Unlock()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	if err := f.place(ctx, root, e); err != nil {
		return fmt.Errorf("item %s: %w", printable(p), err)
	}
	return nil
}

func (f *Files) place(ctx context.Context, root *os.Root, e *storedFile) error {
	name := filepath.FromSlash(string(e.Path))
	at := filepath.Join(root.Name(), name)
	if info, err := root.Lstat(name); err == nil && info.Mode().IsRegular() && info.Size() == e.Size {
		f.mu.Lock()
		known, ok := f.placed[at]
		f.mu.Unlock()
		if ok && known == stampOf(info) {
			return nil
		}
		if hash, err := hashIn(root, name); err == nil && hash == e.Hash {
			return nil
		}
	}
	if d := path.Dir(string(e.Path)); d != "." {
		if err := root.MkdirAll(filepath.FromSlash(d), 0o755); err != nil {
			return err
		}
	}
	var r io.Reader
	if e.Size <= smallFile {
		b, err := f.store.Get(ctx, fileKey(e.Hash))
		if err != nil {
			return err
		}
		r = bytes.NewReader(b)
	} else {
		o := Open(ctx, f.store, fileKey(e.Hash), e.Size)
		defer func() { _ = o.Close() }()
		r = o
	}
	sum := sha256.Sum256([]byte(name))
	next := filepath.Join(filepath.Dir(name), ".coiled-jobs-"+hex.EncodeToString(sum[:8]))
	if err := writeFile(root, next, e.Mode, e.Size, e.Hash, r); err != nil {
		return err
	}
	if err := root.Rename(next, name); err != nil {
		_ = root.Remove(next)
		return err
	}
	if info, err := root.Lstat(name); err == nil {
		f.mu.Lock()
		f.placed[at] = stampOf(info)
		f.mu.Unlock()
	}
	return nil
}

func hashIn(root *os.Root, name string) (string, error) {
	f, err := root.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
