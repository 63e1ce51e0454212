package engine

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Everybody can write to the folder for temporary files, and knows the name of
// ours in it.
func TestScratchBaseIsOurs(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("there each user has a folder for temporary files")
	}
	for name, c := range map[string]struct {
		put func(base string) error
		ok  bool
	}{
		"nothing":  {func(string) error { return nil }, true},
		"ours":     {func(base string) error { return os.Mkdir(base, 0o700) }, true},
		"readable": {func(base string) error { return os.Mkdir(base, 0o755) }, true},
		"anybody's": {func(base string) error {
			if err := os.Mkdir(base, 0o700); err != nil {
				return err
			}
			return os.Chmod(base, 0o777)
		}, false},
		"a link": {func(base string) error { return os.Symlink(os.TempDir(), base) }, false},
		"a file": {func(base string) error { return os.WriteFile(base, nil, 0o600) }, false},
		"somebody else's": {func(base string) error {
			if os.Getuid() != 0 {
				return os.Symlink("/", base) // it takes root to give a folder away
			}
			if err := os.Mkdir(base, 0o700); err != nil {
				return err
			}
			return os.Chown(base, 12345, -1)
		}, false},
	} {
		temp := t.TempDir()
		want, err := scratchBase(temp)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.put(want); err != nil {
			t.Fatal(err)
		}
		base, err := scratchBase(temp)
		switch {
		case c.ok && (err != nil || base != want || filepath.Dir(base) != temp):
			t.Errorf("%s: %q, %v", name, base, err)
		case !c.ok && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %q, %v", name, base, err)
		}
	}
}
