package main

import (
	"os/user"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Where the environment does not say where the home folder is, the system does.
func TestStateDirWithoutHome(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("it has no HOME")
	}
	u, err := user.Current()
	if err != nil || !filepath.IsAbs(u.HomeDir) {
		t.Skipf("the system does not know the home folder: %v", err)
	}
	a := &app{}
	for _, c := range []struct {
		environ []string
		want    string // before the rest
		bad     string
	}{
		{nil, u.HomeDir, ""},
		{[]string{"HOME="}, u.HomeDir, ""},
		{[]string{"HOME=/somewhere"}, "/somewhere/", ""},
		{[]string{"XDG_STATE_HOME=/state"}, "/state/coiled-jobs", ""},
		{[]string{"HOME=here"}, "", `HOME is "here"`},
	} {
		a.environ = c.environ
		dir, err := a.stateDir()
		if c.bad != "" {
			if err == nil || !strings.Contains(err.Error(), c.bad) {
				t.Errorf("%q: %q, %v", c.environ, dir, err)
			}
			continue
		}
		if err != nil || !strings.HasPrefix(dir, c.want) || filepath.Base(dir) != program {
			t.Errorf("%q: %q, %v", c.environ, dir, err)
		}
	}
}
