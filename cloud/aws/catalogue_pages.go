package aws

import (
	"context"
	"encoding/json"
	"os"
	"time"
)

// pagesFor is how long pages of a list are good to go on from: the cloud forgets
// where a reader was.
const pagesFor = time.Hour

// pagesRead is how far somebody came with a list: a process that does not live
// as long as a slow list takes leaves it to the next one.
type pagesRead[T any] struct {
	At   time.Time `json:"at"` // of the first page
	Next string    `json:"next,omitempty"`
	Done bool      `json:"done,omitempty"`
	Data T         `json:"data"`
}

// pages reads a list page by page, from where it was left if that is not long
// ago. ask adds the page at a token to what there is, and gives the next token,
// "" behind the last. What was read stays in a file until forget.
func pages[T any](ctx context.Context, r *catalogueReader, name string, ask func(token string, to *T) (next string, err error)) (T, error) {
	file := ""
	var p pagesRead[T]
	if r.o.Dir != "" {
		file = r.pagesFile(name)
		if data, err := os.ReadFile(file); err != nil || json.Unmarshal(data, &p) != nil || r.now().Sub(p.At).Abs() >= pagesFor {
			p = pagesRead[T]{}
		}
	}
	resumed := !p.At.IsZero()
	if !resumed {
		p.At = r.now()
	}
	for !p.Done {
		next, err := ask(p.Next, &p.Data)
		switch {
		case err != nil && resumed && ctx.Err() == nil: // it may not know the place any more
			resumed, p = false, pagesRead[T]{At: r.now()}
			continue
		case err != nil:
			return p.Data, err
		}
		resumed = false
		p.Next, p.Done = next, next == ""
		if file != "" {
			keep(file, p)
		}
	}
	return p.Data, nil
}

func (r *catalogueReader) pagesFile(name string) string { return r.file("reading-" + name) }

// forget removes the pages of lists that were read to their ends.
func (r *catalogueReader) forget(names ...string) {
	if r.o.Dir == "" {
		return
	}
	for _, name := range names {
		_ = os.Remove(r.pagesFile(name)) // they grow old by themselves, too
	}
}
