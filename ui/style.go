package ui

const reset = "\x1b[0m"

// Style paints text, or leaves it plain. The zero Style is plain.
type Style struct {
	Colour bool
	// ASCII avoids characters that an old terminal or a C locale cannot show.
	ASCII bool
}

func (s Style) paint(code, text string) string {
	if !s.Colour || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + reset
}

// Bold, Dim, Red, Green, Yellow and Blue paint text.
func (s Style) Bold(t string) string   { return s.paint("1", t) }
func (s Style) Dim(t string) string    { return s.paint("2", t) }
func (s Style) Red(t string) string    { return s.paint("31", t) }
func (s Style) Green(t string) string  { return s.paint("32", t) }
func (s Style) Yellow(t string) string { return s.paint("33", t) }
func (s Style) Blue(t string) string   { return s.paint("36", t) }

// Status paints the name of a status in its colour.
func (s Style) Status(status, text string) string {
	switch status {
	case "succeeded":
		return s.Green(text)
	case "failed":
		return s.Red(text)
	case "stopped", "interrupted", "cancelled":
		return s.Yellow(text)
	case "running":
		return s.Blue(text)
	case "skipped", "pending":
		return s.Dim(text)
	}
	return text
}

// Mark is a one-column sign for a status; never the only carrier of its meaning.
func (s Style) Mark(status string) string {
	mark, plain := "·", "."
	switch status {
	case "succeeded":
		mark, plain = "✓", "+"
	case "failed":
		mark, plain = "✗", "x"
	case "skipped":
		mark, plain = "-", "-"
	case "stopped", "interrupted", "cancelled":
		mark, plain = "■", "!"
	case "running":
		mark, plain = "▸", ">"
	}
	if s.ASCII {
		mark = plain
	}
	return s.Status(status, mark)
}
