package failures

import (
	"bytes"
	"regexp"
	"strings"
	"sync"

	"github.com/coiled-jobs/coiled-jobs/task"
)

// maxLine bounds what is kept of a line.
const maxLine = 400

var traceback = []byte("Traceback (most recent call last)")

// Line is the line that says best why an attempt failed: the exception at the
// end of its last traceback; for a program that ended by itself the last line
// that it wrote to standard error, if it wrote one; otherwise the message.
func Line(o *task.Outcome) string {
	line := exception(o.Stderr)
	if line == "" && o.Cause == task.CauseExit {
		line = lastLine(o.Stderr)
	}
	if line == "" {
		line = o.Message
	}
	if line == "" {
		line = o.Cause.String()
	}
	if i := strings.IndexByte(line, '\n'); i >= 0 {
		line = line[:i]
	}
	return clip(strings.TrimSpace(line))
}

// exception is the line behind the last traceback: the first one that is not
// indented. A chain of exceptions ends with the one that was not handled.
func exception(stderr []byte) string {
	i := bytes.LastIndex(stderr, traceback)
	if i < 0 {
		return ""
	}
	for n, line := range bytes.Split(stderr[i:], []byte("\n")) {
		line = bytes.TrimRight(line, "\r")
		if n == 0 || len(line) == 0 || line[0] == ' ' || line[0] == '\t' {
			continue
		}
		return string(line)
	}
	return ""
}

func lastLine(b []byte) string {
	for {
		b = bytes.TrimRight(b, " \t\r\n")
		i := bytes.LastIndexByte(b, '\n')
		line := strings.TrimSpace(stripEscapes(string(b[i+1:])))
		if line != "" || i < 0 {
			return line
		}
		b = b[:i]
	}
}

// rules are what is taken out of a line, in this order: what contains others
// comes first. Compiled when first needed: most commands never are.
var rules = sync.OnceValue(func() []rule {
	return []rule{
		{regexp.MustCompile(`\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07]*(?:\x07|$)|.)`), ""},
		{regexp.MustCompile(`"(?:[^"\\]|\\.)*"`), "…"},
		{regexp.MustCompile(`(^|[\s(\[{=:,])'(?:[^'\\]|\\.)*'`), "${1}…"},
		{regexp.MustCompile("`[^`]*`"), "…"},
		{regexp.MustCompile(`\b[a-z][a-z0-9+.-]*://[^\s,;)\]]+`), "URL"},
		{regexp.MustCompile(`\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b`), "ID"},
		{regexp.MustCompile(`\b0[xX][0-9a-fA-F]+\b`), "N"},
		{regexp.MustCompile(`(^|[\s(\[{=:,])(?:~|\.{1,2})?/[^\s:,;)\]}]+`), "${1}PATH"},
		{regexp.MustCompile(`(^|[\s(\[{=:,])[^\s:,;()\[\]{}=/]+(?:/[^\s:,;()\[\]{}/]+)+`), "${1}PATH"},
		{regexp.MustCompile(`(^|[\s(\[{=:,])[\w.+-]*\w\.[A-Za-z][A-Za-z0-9]{0,7}(?:[:\s,;)\]]|$)`), "${1}PATH "},
		{regexp.MustCompile(`\b[0-9a-f]*[0-9][0-9a-f]{11,}\b`), "ID"},
		{regexp.MustCompile(`[-+]?\d[\d_]*(?:[.,:]\d+)*(?:[eE][-+]?\d+)?`), "N"},
		{regexp.MustCompile(`(?:N[-\s,:T]*){2,}`), "N "},
		{regexp.MustCompile(`\s+`), " "},
	}
})

type rule struct {
	re *regexp.Regexp
	to string
}

func stripEscapes(s string) string {
	if strings.IndexByte(s, 0x1b) < 0 {
		return s
	}
	return rules()[0].re.ReplaceAllString(s, "")
}

// Signature is a line without what differs from task to task.
func Signature(line string) string {
	line = strings.ToValidUTF8(clip(line), "?")
	for _, r := range rules() {
		line = r.re.ReplaceAllString(line, r.to)
	}
	return strings.TrimSpace(line)
}

func clip(s string) string {
	if len(s) <= maxLine {
		return s
	}
	return strings.ToValidUTF8(s[:maxLine], "") + "…"
}
