package ui

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestClean(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, want string }{
		{"plain/0", "plain/0"},
		{"größer 数据 🚕", "größer 数据 🚕"},
		{"a\nb\tc\r", `a\nb\tc\r`},
		{"\x1b[2J\x1b]0;owned\x07", `\x1b[2J\x1b]0;owned\x07`},
		{"caf\xe9", `caf\xe9`},
		{"\u202egnp.exe", `\u202egnp.exe`},
		{"zero\u200bwidth", `zero\u200bwidth`},
		{"\u009b31mred", `\x9b31mred`},
		{"\u2028line", `\u2028line`},
		{"\ufffd kept", "\ufffd kept"},
		{"nul\x00del\x7f", `nul\x00del\x7f`},
	} {
		got := Clean(tt.in)
		if got != tt.want {
			t.Errorf("Clean(%q) = %q, want %q", tt.in, got, tt.want)
		}
		if !utf8.ValidString(got) || strings.ContainsAny(got, "\x1b\n\r\t\x07\u009b") {
			t.Errorf("Clean(%q) = %q is not safe", tt.in, got)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("\x1b[31m\xff\u202e\n")
	f.Fuzz(func(t *testing.T, s string) {
		got := Clean(s)
		if !utf8.ValidString(got) {
			t.Errorf("%q", got)
		}
		for _, r := range got {
			if r != utf8.RuneError && unsafe(r) {
				t.Errorf("Clean(%q) = %q has %U", s, got, r)
			}
		}
		for w := range 12 {
			if cut := Truncate(got, w); Width(cut) > w {
				t.Errorf("Truncate(%q, %d) = %q is %d wide", got, w, cut, Width(cut))
			}
		}
	})
}

func TestWidthAndTruncate(t *testing.T) {
	t.Parallel()
	red := Style{Colour: true}.Red("failed")
	for _, tt := range []struct {
		in    string
		width int
		cut   string // to 5 columns
	}{
		{"abc", 3, "abc"},
		{"abcdef", 6, "abcd…"},
		{"数据数据", 8, "数据…"},
		{"e\u0301te\u0301", 3, "e\u0301te\u0301"},
		{"🚕🚕🚕", 6, "🚕🚕…"},
		{red, 6, "\x1b[31mfail…\x1b[0m"},
	} {
		if w := Width(tt.in); w != tt.width {
			t.Errorf("Width(%q) = %d, want %d", tt.in, w, tt.width)
		}
		if got := Truncate(tt.in, 5); got != tt.cut {
			t.Errorf("Truncate(%q, 5) = %q, want %q", tt.in, got, tt.cut)
		}
	}
	if got := Truncate("abc", 0); got != "" {
		t.Errorf("%q", got)
	}
}

func TestLogWriter(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, plain, colour string }{
		{"text\n", "text\n", "text\n"},
		{"\x1b[31mred\x1b[0m\n", "red\n", "\x1b[31mred\x1b[0m\n"},
		{"\x1b[31mred\n", "red\n", "\x1b[31mred\n\x1b[0m"},
		{"a\x1b[2J\x1b[Hb", "ab", "ab"},
		{"a\x1b]0;title\x07b\x1b]8;;http://x\x1b\\c", "abc", "abc"},
		{"a\x1bP1$r\x1b\\b", "ab", "ab"},
		{"10%\r20%\r\n30%\r", "10%\n20%\n30%\n", "10%\n20%\n30%\n"},
		{"bell\x07back\x08", "bellback", "bellback"},
		{"caf\xe9 ü 数", "caf\ufffd ü 数", "caf\ufffd ü 数"},
		{"\u009b31mx\u202ey", "31mxy", "31mxy"},
		{"a\x1b(Bb\x1bcd", "abd", "abd"},
		{"a\x1b[31\nb", "a\nb", "a\nb"},
	} {
		for _, colour := range []bool{false, true} {
			want := tt.plain
			if colour {
				want = tt.colour
			}
			// At once, and byte by byte.
			for _, step := range []int{len(tt.in), 1} {
				var out strings.Builder
				w := &LogWriter{W: &out, Colour: colour}
				for i := 0; i < len(tt.in); i += step {
					if n, err := w.Write([]byte(tt.in[i : i+step])); n != step || err != nil {
						t.Fatal(n, err)
					}
				}
				if err := w.End(); err != nil {
					t.Fatal(err)
				}
				if out.String() != want {
					t.Errorf("%q (colour %v, step %d): %q, want %q", tt.in, colour, step, out.String(), want)
				}
			}
		}
	}
}

func TestFormat(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		Count(0): "0", Count(999): "999", Count(1000): "1,000", Count(1234567): "1,234,567", Count(-1234): "-1,234",
		Plural(1, "task"): "1 task", Plural(1200, "retry"): "1,200 retries", Plural(2, "day"): "2 days",
		Seconds(0): "0 s", Seconds(0.0125): "12 ms", Seconds(0.0999): "0.10 s", Seconds(0.25): "0.25 s", Seconds(0.999): "1.0 s", Seconds(9.94): "9.9 s",
		Seconds(59.4): "59 s", Seconds(59.6): "1m 00s", Seconds(245): "4m 05s", Seconds(3600*3 + 60*20): "3h 20m", Seconds(100000): "1d 3h",
		Seconds(-1): "0 s", Bytes(1023): "1023 B", Bytes(1536): "1.5 KiB", Bytes(20 << 30): "20 GiB",
		Dollars(0): "$0.00", Dollars(0.0042): "$0.0042", Dollars(12.345): "$12.35",
		Rate(0): "", Rate(1234.4): "1,234/s", Rate(2.5): "2.5/s", Rate(0.5): "30.0/min", Rate(0.001): "3.6/h",
		Task("clean", 0, 1): "clean", Task("clean", 3, 10): "clean/3", Task("a\nb", 3, 10): `a\nb/3`,
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
