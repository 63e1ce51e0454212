//go:build unix

package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

const (
	fileHashKey  = "cache/files"
	maxFileHash  = 200_000
	hashSettling = 2 * time.Second
)

// fileHashes knows the content hashes of local files. Size, times and inode
// are only a shortcut: a file that was changed is read again, one that was
// merely touched too, and has the same hash then.
type fileHashes struct {
	store cloud.Store
	load  sync.Once
	mu    sync.Mutex
	by    map[string]fileHash
	dirty bool
}

type fileHash struct {
	Size  int64  `json:"s"`
	Mtime int64  `json:"m"`
	Ctime int64  `json:"c"`
	Inode uint64 `json:"i"`
	Hash  string `json:"h"`
}

func newFileHashes(store cloud.Store) *fileHashes { return &fileHashes{store: store} }

// hash is the sha256 of a file, hex.
func (h *fileHashes) hash(name string) (string, error) {
	h.load.Do(func() {
		h.by = map[string]fileHash{}
		if b, err := h.store.Get(context.Background(), fileHashKey); err == nil {
			_ = json.Unmarshal(b, &h.by) // a hint: without it files are read
		}
	})
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: name, Err: err}
	}
	e := fileHash{Size: st.Size, Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano(), Inode: st.Ino}
	h.mu.Lock()
	old, ok := h.by[name]
	h.mu.Unlock()
	if ok {
		e.Hash = old.Hash
		if e == old {
			return old.Hash, nil
		}
	}
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	e.Hash = hex.EncodeToString(sum.Sum(nil))
	// A file that has just been written could change again within the
	// resolution of its times.
	if time.Since(time.Unix(0, max(e.Mtime, e.Ctime))) > hashSettling {
		h.mu.Lock()
		if len(h.by) < maxFileHash {
			h.by[name] = e
			h.dirty = true
		}
		h.mu.Unlock()
	}
	return e.Hash, nil
}

// save keeps what is known for later runs.
func (h *fileHashes) save(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.dirty {
		return nil
	}
	b, err := json.Marshal(h.by)
	if err == nil {
		err = h.store.Put(ctx, fileHashKey, b)
	}
	if cloud.KindOf(err) == cloud.KindFull || errors.Is(err, unix.ENOSPC) {
		return nil // only a shortcut
	}
	return err
}
