package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// Pull makes a folder hold exactly one version of the code: what has changed
// is fetched, in parallel, and everything that is not in it is removed. The
// folder belongs to Pull; nothing else may write to it meanwhile.
//
// Every content is checked against its hash, and nothing is written outside of
// the folder, whatever links lie in it. An interrupted Pull is made good by the
// next one. What is known of the folder lies beside it, in ".<name>.pulled".
func Pull(ctx context.Context, store cloud.Store, key, dir string) error {
	s, err := fetchStored(ctx, store, key)
	if err != nil {
		if cloud.KindOf(err) == cloud.KindNotFound {
			return fmt.Errorf("code of the run: %w: it was removed from the store; apply again", err)
		}
		return fmt.Errorf("code of the run: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("code of the run: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("code of the run: %w", err)
	}
	defer func() { _ = root.Close() }()
	p := &puller{store: store, dir: dir, root: root, s: s, cache: openHashCacheFile(pulledFile(dir))}
	if err := p.pull(ctx); err != nil {
		return fmt.Errorf("code of the run: %w", err)
	}
	return nil
}

// pulledFile is where it is remembered what Pull wrote.
func pulledFile(dir string) string {
	dir = filepath.Clean(dir)
	return filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir)+".pulled")
}

type puller struct {
	store cloud.Store
	dir   string
	root  *os.Root
	s     *stored
	cache *hashCache
	want  map[string]*storedFile
	todo  map[string][]*storedFile // by hash of the content
}

func (p *puller) pull(ctx context.Context) error {
	p.want = make(map[string]*storedFile, len(p.s.Files))
	folders := map[string]bool{".": true}
	for i := range p.s.Files {
		f := &p.s.Files[i]
		p.want[string(f.Path)] = f
		for d := path.Dir(string(f.Path)); !folders[d]; d = path.Dir(d) {
			folders[d] = true
		}
	}
	if err := p.clear(ctx, ".", folders); err != nil {
		return err
	}
	if err := p.compare(ctx); err != nil {
		return err
	}
	names := make([]string, 0, len(folders))
	for d := range folders {
		names = append(names, d)
	}
	slices.Sort(names)
	for _, d := range names {
		if err := p.root.Mkdir(filepath.FromSlash(d), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := p.fetch(ctx); err != nil {
		return err
	}
	for i := range p.s.Files {
		if f := &p.s.Files[i]; f.Link != "" {
			if err := p.makeLink(f); err != nil {
				return err
			}
		}
	}
	p.remember()
	return nil
}

// clear removes what is not part of the version: other files, folders, and
// what has the name of one but is the other.
func (p *puller) clear(ctx context.Context, folder string, folders map[string]bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f, err := p.root.Open(filepath.FromSlash(folder))
	if err != nil {
		return err
	}
	entries, err := f.ReadDir(-1)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(folder, e.Name())
		want := p.want[name]
		switch {
		case e.IsDir() && folders[name]:
			if err := p.clear(ctx, name, folders); err != nil {
				return err
			}
			continue
		case !e.IsDir() && want != nil && (e.Type().IsRegular() || e.Type()&fs.ModeSymlink != 0 && want.Link != ""):
			continue
		}
		if err := removeAll(p.root, filepath.FromSlash(name)); err != nil {
			return err
		}
	}
	return nil
}

// removeAll removes a tree, also folders that a task made unwritable.
func removeAll(root *os.Root, name string) error {
	err := root.RemoveAll(name)
	if err == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	werr := fs.WalkDir(root.FS(), filepath.ToSlash(name), func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // removing it will say what is wrong
		}
		if d.IsDir() {
			return root.Chmod(filepath.FromSlash(p), 0o700)
		}
		return nil
	})
	if werr != nil {
		return err
	}
	return root.RemoveAll(name)
}

// compare finds the contents that have to be fetched.
func (p *puller) compare(ctx context.Context) error {
	same := make([]bool, len(p.s.Files))
	err := parallel(ctx, 8, len(p.s.Files), func(_ context.Context, i int) (err error) {
		f := &p.s.Files[i]
		if f.Link != "" {
			return nil
		}
		same[i], err = p.same(f)
		return err
	})
	if err != nil {
		return err
	}
	p.todo = map[string][]*storedFile{}
	for i := range p.s.Files {
		if f := &p.s.Files[i]; f.Link == "" && !same[i] {
			p.todo[f.Hash] = append(p.todo[f.Hash], f)
		}
	}
	return nil
}

// same says whether a file is there as it should be; only its mode is mended.
func (p *puller) same(f *storedFile) (bool, error) {
	name := filepath.FromSlash(string(f.Path))
	info, err := p.root.Lstat(name)
	if err != nil || !info.Mode().IsRegular() || info.Size() != f.Size {
		return false, nil //nolint:nilerr // it is written anew
	}
	hash, _, err := p.cache.hash(p.dir, string(f.Path), stampOf(info))
	if err != nil || hash != f.Hash {
		return false, nil //nolint:nilerr // likewise
	}
	if info.Mode()&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) != f.Mode {
		return true, p.root.Chmod(name, f.Mode)
	}
	return true, nil
}

// write makes a file with this content.
func (p *puller) write(f *storedFile, r io.Reader) error {
	return writeFile(p.root, filepath.FromSlash(string(f.Path)), f.Mode, f.Size, f.Hash, r)
}

// writeFile makes a file anew and checks its content. One that is wrong is
// removed.
func writeFile(root *os.Root, name string, mode fs.FileMode, size int64, hash string, r io.Reader) (err error) {
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	w, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := w.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			_ = root.Remove(name)
		}
	}()
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, h), io.LimitReader(r, size+1))
	if err != nil {
		return err
	}
	if n != size || hex.EncodeToString(h.Sum(nil)) != hash {
		return &cloud.Error{Op: "check", Resource: name, Kind: cloud.KindCorrupt,
			Err: errors.New("what the store holds is not what was pushed: it does not have the expected hash")}
	}
	return w.Chmod(mode)
}

// span is neighbouring frames of a pack that are read together.
type span struct {
	pack   *storedPack
	frames []int64
	files  map[int64][]*storedFile // by frame: one of each content
}

const maxSpan = 4 << 20 // bytes of one request

// fetch reads what compare found missing.
func (p *puller) fetch(ctx context.Context) error {
	byPack := make([]map[int64][]*storedFile, len(p.s.Packs))
	var large []*storedFile
	for _, list := range p.todo {
		f := list[0]
		switch {
		case f.At == nil:
			large = append(large, f)
			continue
		case byPack[f.At[0]] == nil:
			byPack[f.At[0]] = map[int64][]*storedFile{}
		}
		byPack[f.At[0]][f.At[1]] = append(byPack[f.At[0]][f.At[1]], f)
	}
	var spans []span
	for i, frames := range byPack {
		spans = append(spans, plan(&p.s.Packs[i], frames)...)
	}
	slices.SortFunc(large, func(a, b *storedFile) int { return strings.Compare(string(a.Path), string(b.Path)) })
	return parallel(ctx, 16, len(large)+len(spans), func(ctx context.Context, i int) error {
		if i < len(large) {
			return p.fetchLarge(ctx, large[i])
		}
		return p.fetchSpan(ctx, &spans[i-len(large)])
	})
}

// plan groups the frames that are needed of a pack.
func plan(pack *storedPack, frames map[int64][]*storedFile) (spans []span) {
	numbers := make([]int64, 0, len(frames))
	for n := range frames {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		if k := len(spans) - 1; k >= 0 {
			s := &spans[k]
			first, last := pack.Frames[s.frames[0]], pack.Frames[s.frames[len(s.frames)-1]]
			f := pack.Frames[n]
			if f[0] == last[0]+last[1] && f[0]+f[1]-first[0] <= maxSpan {
				s.frames = append(s.frames, n)
				continue
			}
		}
		spans = append(spans, span{pack: pack, frames: []int64{n}, files: frames})
	}
	return spans
}

func (p *puller) fetchSpan(ctx context.Context, s *span) error {
	first, last := s.pack.Frames[s.frames[0]], s.pack.Frames[s.frames[len(s.frames)-1]]
	b, err := readRange(ctx, p.store, s.pack.Key, first[0], last[0]+last[1]-first[0])
	if err != nil {
		return err
	}
	for _, n := range s.frames {
		fr := s.pack.Frames[n]
		content, err := decodeFrame(b[fr[0]-first[0]:][:fr[1]], fr[2])
		if err != nil {
			return &cloud.Error{Op: "unpack", Resource: s.pack.Key, Kind: cloud.KindCorrupt, Err: err}
		}
		for _, one := range s.files[n] {
			for _, f := range p.todo[one.Hash] {
				if err := p.write(f, bytes.NewReader(content[one.At[2]:][:one.Size])); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (p *puller) fetchLarge(ctx context.Context, one *storedFile) error {
	list := p.todo[one.Hash]
	r := Open(ctx, p.store, fileKey(one.Hash), one.Size)
	defer func() { _ = r.Close() }()
	if err := p.write(list[0], r); err != nil {
		return err
	}
	for _, f := range list[1:] {
		src, err := p.root.Open(filepath.FromSlash(string(list[0].Path)))
		if err != nil {
			return err
		}
		err = p.write(f, src)
		if cerr := src.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *puller) makeLink(f *storedFile) error {
	name, target := filepath.FromSlash(string(f.Path)), filepath.FromSlash(string(f.Link))
	if have, err := p.root.Readlink(name); err == nil && have == target {
		return nil
	}
	if err := p.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return p.root.Symlink(target, name)
}

// remember notes what the folder holds now. What is so new that another write
// could leave no trace in its times is read again next time.
func (p *puller) remember() {
	const tick = 20 * time.Millisecond // of the clock that file systems use
	p.cache.old, p.cache.now = nil, make(map[string]cached, len(p.s.Files))
	for i := range p.s.Files {
		f := &p.s.Files[i]
		if f.Link != "" {
			continue
		}
		info, err := p.root.Lstat(filepath.FromSlash(string(f.Path)))
		if err != nil {
			continue
		}
		e := cached{stamp: stampOf(info)}
		if time.Since(time.Unix(0, max(e.mtime, e.ctime))) < tick {
			continue
		}
		if b, err := hex.DecodeString(f.Hash); err == nil && copy(e.sum[:], b) == sha256.Size {
			p.cache.now[string(f.Path)] = e
		}
	}
	p.cache.dirty = true
	p.cache.save()
}
