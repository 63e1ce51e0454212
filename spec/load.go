package spec

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Load reads and parses a file. What is wrong with its contents comes back as
// Problems, what keeps it from being read as another error.
func Load(file string) (*Document, error) {
	src, err := readFile(file)
	if err != nil {
		return nil, err
	}
	doc, problems := Parse(src, file)
	if problems.Err() == nil {
		return doc, nil
	}
	// With an error there will be no other Bind: say all that can be said.
	_, problems = doc.Bind(BindOptions{Lenient: true})
	return nil, problems
}

func readFile(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("pipeline file %s: %w (\"coiled-jobs init\" writes a first one)", file, fs.ErrNotExist)
		case errors.Is(err, fs.ErrPermission):
			return nil, fmt.Errorf("pipeline file %s: %w: it cannot be read by this user", file, fs.ErrPermission)
		}
		return nil, fmt.Errorf("pipeline file: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, fmt.Errorf("pipeline file %s: it is a folder, not a file", file)
	}
	// More than is allowed, to say how long it is, but not without an end.
	src, err := io.ReadAll(io.LimitReader(f, 64<<20))
	if err != nil {
		return nil, fmt.Errorf("pipeline file %s: read: %w", file, err)
	}
	return src, nil
}
