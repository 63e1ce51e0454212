package local

import (
	"io/fs"
	"os"
	"sync"
)

// cachedFiles is how many files a store keeps open for reading. Readers go
// through a few journals and logs, a record at a time.
const cachedFiles = 16

// fileCache keeps files open between reads, as opening costs many times more
// than reading a record. A file that was replaced or deleted meanwhile has no
// name any more, which fstat tells.
type fileCache struct {
	mu   sync.Mutex
	list []*cachedFile // least recently used first
}

type cachedFile struct {
	*os.File
	key  string
	fd   uintptr
	refs int  // readers that use it now
	out  bool // no longer in the list: the last reader closes it
}

// get gives the open file of a key; the caller gives it back with put.
func (c *fileCache) get(s *Store, key string) (*cachedFile, error) {
	c.mu.Lock()
	for i, f := range c.list {
		if f.key != key {
			continue
		}
		if unlinked(f.fd) {
			c.drop(i)
			break
		}
		copy(c.list[i:], c.list[i+1:])
		c.list[len(c.list)-1] = f
		f.refs++
		c.mu.Unlock()
		return f, nil
	}
	c.mu.Unlock()

	file, err := s.openObject(key)
	if err != nil {
		return nil, err
	}
	f := &cachedFile{File: file, key: key, refs: 1}
	raw, err := file.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { f.fd = fd })
	}
	if err != nil {
		file.Close()
		return nil, &fs.PathError{Op: "open", Path: key, Err: err}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.list {
		if c.list[i].key == key { // another reader opened it at the same time
			c.drop(i)
			break
		}
	}
	if len(c.list) == cachedFiles {
		c.drop(0)
	}
	c.list = append(c.list, f)
	return f, nil
}

// put gives a file back.
func (c *fileCache) put(f *cachedFile) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.refs--
	if f.out && f.refs == 0 {
		f.Close()
	}
}

// drop takes the file at i out of the list. The caller holds mu.
func (c *fileCache) drop(i int) {
	f := c.list[i]
	c.list = append(c.list[:i], c.list[i+1:]...)
	f.out = true
	if f.refs == 0 {
		f.Close()
	}
}

// forget closes the file of a key, so that a deleted one frees its space.
func (c *fileCache) forget(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, f := range c.list {
		if f.key == key {
			c.drop(i)
			return
		}
	}
}

// close closes all files that are not being read.
func (c *fileCache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.list) > 0 {
		c.drop(len(c.list) - 1)
	}
}
