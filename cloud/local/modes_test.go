package local_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/cloud/local"
)

// A link that leads nowhere is an error in a folder that is shared.
func TestLinkToNothing(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere there are other rules for groups")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o770|fs.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "runs")); err != nil {
		t.Fatal(err)
	}
	s, err := local.FindStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Put(t.Context(), "runs/a/x", []byte("x")); err == nil {
		t.Error("written to nowhere")
	}
}

// Objects are their owner's alone, unless the group of the folder may write in
// it: then they are the group's, too, whatever the umask.
func TestModes(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere there are other rules for groups")
	}
	for name, c := range map[string]struct{ folder, files, folders fs.FileMode }{
		"own":                            {0o700, 0o600, 0o700},
		"others may look":                {0o755, 0o600, 0o700},
		"of nobody's group":              {0o775, 0o600, 0o700},
		"the group may look":             {0o750 | fs.ModeSetgid, 0o600, 0o700 | fs.ModeSetgid},
		"the group's":                    {0o770 | fs.ModeSetgid, 0o660, 0o770 | fs.ModeSetgid},
		"others may look at the group's": {0o775 | fs.ModeSetgid, 0o660, 0o770 | fs.ModeSetgid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.Chmod(dir, c.folder); err != nil {
				t.Fatal(err)
			}
			s, err := local.FindStore(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			ctx := t.Context()
			if err := s.Put(ctx, "runs/a/put", []byte("x")); err != nil {
				t.Error(err)
			}
			if err := s.Create(ctx, "runs/b/c/created", []byte("x")); err != nil {
				t.Error(err)
			}
			f, err := s.OpenAppend("runs/a/logs/log")
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
			j, err := s.OpenJournal(ctx, "runs/a/journal")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := j.Append([]byte("x")); err != nil {
				t.Error(err)
			}
			j.Close()
			n := 0
			err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
				if err != nil || p == dir {
					return err
				}
				info, err := d.Info()
				want := c.files
				if d.IsDir() {
					want = c.folders
				} else {
					n++
				}
				if err == nil && info.Mode()&(fs.ModePerm|fs.ModeSetgid) != want {
					t.Errorf("%s: %v, want %v", p, info.Mode(), want)
				}
				return err
			})
			if err != nil || n != 4 {
				t.Errorf("%d files, %v", n, err)
			}
		})
	}
}
