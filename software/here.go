package software

import (
	"context"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/spec"
)

// twoNumbers is a version that uv can fetch: none before 3.8.
var twoNumbers = regexp.MustCompile(`^3\.([89]|[1-9][0-9])$`)

// MatchPython makes software that names packages, but nowhere a version of
// Python, ask for that of the python3 here, "3.12": its owner tried the
// packages with it, and the python3 of a machine may be too old for them. A
// lock file or a project says what it works with; it stays as it is, as does
// everything where there is no python3. An error is one of Files.
func MatchPython(ctx context.Context, sw *spec.Software, dir string) error {
	n, err := resolve(sw, dir)
	if err != nil || !n.anyPython() {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	out, err := exec.CommandContext(ctx, "python3", "-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2])").Output()
	if v := strings.TrimSpace(string(out)); err == nil && twoNumbers.MatchString(v) {
		sw.Python = v
	}
	return nil
}

// anyPython says whether the environment is made of whatever Python is there.
func (n *needs) anyPython() bool {
	return n.reqs != "" && n.python == "" && n.conda == "" && n.lock == "" && n.project == ""
}
