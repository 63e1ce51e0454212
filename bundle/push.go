package bundle

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// PushStats says what a push had to do.
type PushStats struct {
	Files, SentFiles int
	Bytes, SentBytes int64 // of contents, before compression
	SentObjects      int   // packs and large files
	StoredBytes      int64 // of these objects
	Unchanged        bool  // the store had this version
}

// Push stores a version of the code and returns the key of its manifest. Only
// contents that the versions known so far do not have are sent; a push that
// was interrupted does not send again what had arrived. Concurrent pushers do
// no harm.
func Push(ctx context.Context, store cloud.Store, m *Manifest) (key string, stats *PushStats, err error) {
	p := &pusher{store: store, m: m, places: map[string]place{}, own: map[string]bool{},
		stats: &PushStats{Files: len(m.Entries), Bytes: m.Bytes()}, memory: openMemory(m.cache, store.URL(), m.dir)}
	if err := p.push(ctx); err != nil {
		return "", nil, err
	}
	p.memory.note(m.Key())
	return m.Key(), p.stats, nil
}

type pusher struct {
	store  cloud.Store
	m      *Manifest
	stats  *PushStats
	memory *memory
	places map[string]place // of small contents, by hash
	own    map[string]bool  // hashes of contents that are objects of their own and will stay
}

func (p *pusher) push(ctx context.Context) error {
	done, err := p.present(ctx)
	if err != nil || done {
		p.stats.Unchanged = done
		return err
	}
	small, large := p.contents()
	if err := p.learn(ctx, small, large); err != nil {
		return err
	}
	p.limitPacks(small)
	if err := p.sendPacks(ctx, small); err != nil {
		return err
	}
	if err := p.sendLarge(ctx, large); err != nil {
		return err
	}
	return p.record(ctx)
}

// present says whether the store has this version, whole. One that is not
// quite young is looked over and written anew, so that it stays.
func (p *pusher) present(ctx context.Context) (bool, error) {
	key := p.m.Key()
	if time.Since(p.memory.when(key)) < refreshed {
		return exists(ctx, p.store, key)
	}
	s, err := fetchStored(ctx, p.store, key)
	switch {
	case cloud.KindOf(err) == cloud.KindNotFound || cloud.KindOf(err) == cloud.KindCorrupt:
		return false, nil
	case err != nil:
		return false, err
	case time.Since(s.Pushed) < refreshed:
		return true, nil
	}
	if time.Since(s.Pushed) > trusted {
		return false, nil
	}
	if ok, err := s.whole(ctx, p.store); !ok {
		return false, err
	}
	s.Pushed = time.Now().UTC()
	b, err := json.Marshal(s)
	if err != nil {
		return false, err
	}
	return true, p.store.Put(ctx, key, b)
}

// fetchStored reads and checks a manifest.
func fetchStored(ctx context.Context, store cloud.Store, key string) (*stored, error) {
	b, err := store.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	return parseStored(key, b)
}

// objects is the keys of all objects with contents.
func (s *stored) objects() []string {
	var keys []string
	for i := range s.Packs {
		keys = append(keys, s.Packs[i].Key)
	}
	for i := range s.Files {
		if f := &s.Files[i]; f.At == nil && f.Hash != "" {
			keys = append(keys, fileKey(f.Hash))
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// whole says whether all contents are there.
func (s *stored) whole(ctx context.Context, store cloud.Store) (bool, error) {
	keys := s.objects()
	missing := make([]bool, len(keys))
	err := parallel(ctx, 16, len(keys), func(ctx context.Context, i int) error {
		ok, err := exists(ctx, store, keys[i])
		missing[i] = !ok
		return err
	})
	return err == nil && !slices.Contains(missing, true), err
}

// contents is the different contents, in the order of the paths.
func (p *pusher) contents() (small, large []*Entry) {
	seen := map[string]bool{}
	for i := range p.m.Entries {
		e := &p.m.Entries[i]
		if e.Link != "" || seen[e.Hash] {
			continue
		}
		seen[e.Hash] = true
		if e.Size <= smallFile {
			small = append(small, e)
		} else {
			large = append(large, e)
		}
	}
	return small, large
}

// learn finds out where contents lie from versions that were pushed before:
// the last one of the same name, and those that were pushed from here.
func (p *pusher) learn(ctx context.Context, small, large []*Entry) error {
	keys := p.memory.keys()
	if b, err := p.store.Get(ctx, p.latestKey()); err == nil {
		keys = append([]string{string(b)}, keys...)
	} else if cloud.KindOf(err) != cloud.KindNotFound {
		return err
	}
	tried := map[string]bool{}
	for _, key := range keys {
		if tried[key] || !p.missing(small, large) {
			continue
		}
		tried[key] = true
		s, err := fetchStored(ctx, p.store, key)
		if kind := cloud.KindOf(err); err != nil {
			if kind == cloud.KindNotFound || kind == cloud.KindCorrupt || kind == cloud.KindInvalid {
				continue // a hint that leads nowhere
			}
			return err
		}
		if time.Since(s.Pushed) > trusted {
			continue
		}
		if ok, err := s.whole(ctx, p.store); err != nil {
			return err
		} else if !ok {
			continue
		}
		for i := range s.Files {
			f := &s.Files[i]
			if f.At == nil {
				p.own[f.Hash] = f.Hash != ""
			} else if _, ok := p.places[f.Hash]; !ok {
				p.places[f.Hash] = place{pack: &s.Packs[f.At[0]], frame: f.At[1], off: f.At[2]}
			}
		}
	}
	return nil
}

func (p *pusher) missing(small, large []*Entry) bool {
	for _, e := range small {
		if _, ok := p.places[e.Hash]; !ok {
			return true
		}
	}
	return slices.ContainsFunc(large, func(e *Entry) bool { return !p.own[e.Hash] })
}

// latestKey is where the last version of this name is pointed to.
func (p *pusher) latestKey() string {
	sum := sha256.Sum256([]byte(p.m.name))
	return latestPrefix + hex.EncodeToString(sum[:8])
}

// limitPacks forgets where contents lie if they are scattered over too many
// packs: the packs of which the least is used are given up.
func (p *pusher) limitPacks(small []*Entry) {
	used := map[string]int64{}
	for _, e := range small {
		if at, ok := p.places[e.Hash]; ok {
			used[at.pack.Key] += e.Size
		}
	}
	if len(used) < maxPacks {
		return
	}
	keys := make([]string, 0, len(used))
	for k := range used {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		return cmp.Or(cmp.Compare(used[b], used[a]), strings.Compare(a, b))
	})
	keep := map[string]bool{}
	for _, k := range keys[:maxPacks/2] {
		keep[k] = true
	}
	// A large version has many packs for good reason.
	for _, k := range keys[maxPacks/2:] {
		if used[k] > fullPack/4 {
			keep[k] = true
		}
	}
	for hash, at := range p.places {
		if !keep[at.pack.Key] {
			delete(p.places, hash)
		}
	}
}

// sendPacks puts small contents that the store does not have into packs.
func (p *pusher) sendPacks(ctx context.Context, small []*Entry) error {
	var todo []*Entry
	for _, e := range small {
		if _, ok := p.places[e.Hash]; !ok {
			todo = append(todo, e)
		}
	}
	packs := planPacks(todo)
	var mu sync.Mutex
	return parallel(ctx, 4, len(packs), func(ctx context.Context, i int) error {
		obj, sp, places, err := packs[i].build(ctx, p.m.dir)
		if err != nil {
			return err
		}
		// The same pack may be there from a push that was interrupted.
		there, err := young(ctx, p.store, sp.Key)
		if err == nil && !there {
			err = p.store.Put(ctx, sp.Key, obj)
		}
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		for j, e := range packs[i].list {
			p.places[e.Hash] = places[j]
			if !there {
				p.stats.SentBytes += e.Size
				p.stats.SentFiles++
			}
		}
		if !there {
			p.stats.SentObjects++
			p.stats.StoredBytes += int64(len(obj))
		}
		return nil
	})
}

// sendLarge stores large contents that the store does not have.
func (p *pusher) sendLarge(ctx context.Context, large []*Entry) error {
	var mu sync.Mutex
	return parallel(ctx, 4, len(large), func(ctx context.Context, i int) error {
		e := large[i]
		if p.own[e.Hash] {
			return nil
		}
		there, err := young(ctx, p.store, fileKey(e.Hash))
		if err != nil || there {
			return err
		}
		if err := sendFile(ctx, p.store, p.m.dir, e); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		p.stats.SentObjects++
		p.stats.SentFiles++
		p.stats.SentBytes += e.Size
		p.stats.StoredBytes += e.Size
		return nil
	})
}

// record writes the manifest, last, and then the pointer to it.
func (p *pusher) record(ctx context.Context) error {
	s := stored{Version: storedVersion, Pushed: time.Now().UTC()}
	number := map[string]int64{}
	for i := range p.m.Entries {
		e := &p.m.Entries[i]
		f := storedFile{Path: text(e.Path), Mode: e.Mode, Size: e.Size, Hash: e.Hash, Link: text(e.Link)}
		if at, ok := p.places[e.Hash]; ok && e.Link == "" {
			n, ok := number[at.pack.Key]
			if !ok {
				n = int64(len(s.Packs))
				number[at.pack.Key] = n
				s.Packs = append(s.Packs, *at.pack)
			}
			f.At = &[3]int64{n, at.frame, at.off}
		}
		s.Files = append(s.Files, f)
	}
	b, err := json.Marshal(&s)
	if err != nil {
		return err
	}
	if err := p.store.Put(ctx, p.m.Key(), b); err != nil {
		return err
	}
	return p.store.Put(ctx, p.latestKey(), []byte(p.m.Key()))
}

// memory is which versions were pushed from a folder to a store, the last one
// first. It is only a shortcut.
type memory struct {
	file string
	list []memoryEntry
}

type memoryEntry struct {
	Key string    `json:"key"`
	At  time.Time `json:"at"` // when the store was seen to have it whole
}

const maxMemory = 8

func openMemory(folder, store, dir string) *memory {
	m := &memory{}
	if folder == "" {
		return m
	}
	sum := sha256.Sum256([]byte(store + "\x00" + dir))
	m.file = filepath.Join(folder, "pushed", hex.EncodeToString(sum[:8]))
	if b, err := os.ReadFile(m.file); err == nil {
		if json.NewDecoder(bytes.NewReader(b)).Decode(&m.list) != nil {
			m.list = nil
		}
	}
	return m
}

func (m *memory) when(key string) time.Time {
	for _, e := range m.list {
		if e.Key == key {
			return e.At
		}
	}
	return time.Time{}
}

func (m *memory) keys() []string {
	var keys []string
	for _, e := range m.list {
		keys = append(keys, e.Key)
	}
	return keys
}

// note remembers that the store has a version.
func (m *memory) note(key string) {
	if m.file == "" || len(m.list) > 0 && m.list[0].Key == key && time.Since(m.list[0].At) < refreshed {
		return
	}
	at := time.Now().UTC()
	if old := m.when(key); time.Since(old) < refreshed {
		at = old
	}
	list := []memoryEntry{{Key: key, At: at}}
	for _, e := range m.list {
		if e.Key != key && len(list) < maxMemory {
			list = append(list, e)
		}
	}
	m.list = list
	if b, err := json.Marshal(list); err == nil {
		writeCache(m.file, b)
	}
}
