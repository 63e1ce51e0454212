package ui

import (
	"bytes"
	"io"
	"strings"
)

// Table is rows under a header. Cells are plain data; Write cleans them.
type Table struct {
	Header []string
	Right  []bool // columns of numbers; may be shorter than Header
	Rows   [][]string
	// Paint styles a cell on a terminal after it was padded; may be nil.
	Paint func(row, col int, text string) string
}

// Write writes aligned columns under a header, cut to width columns (0: not cut).
func (t *Table) Write(w io.Writer, st Style, width int) error {
	widths := make([]int, len(t.Header))
	cells := make([][]string, 0, len(t.Rows)+1)
	for _, row := range append([][]string{t.Header}, t.Rows...) {
		line := make([]string, len(t.Header))
		for i := range line {
			if i < len(row) {
				line[i] = Clean(row[i])
			}
			widths[i] = max(widths[i], Width(line[i]))
		}
		cells = append(cells, line)
	}
	var b bytes.Buffer
	for n, line := range cells {
		var s strings.Builder
		for i, cell := range line {
			right := i < len(t.Right) && t.Right[i]
			if i > 0 {
				s.WriteString("  ")
			}
			if right || i < len(line)-1 {
				cell = pad(cell, widths[i], right)
			}
			switch {
			case n == 0:
				cell = st.Dim(cell)
			case t.Paint != nil:
				cell = t.Paint(n-1, i, cell)
			}
			s.WriteString(cell)
		}
		text := strings.TrimRight(s.String(), " ")
		if width > 0 {
			text = Truncate(text, width)
		}
		b.WriteString(text)
		b.WriteByte('\n')
	}
	_, err := w.Write(b.Bytes())
	return err
}

// WriteTSV writes the rows, without a header, separated by tabs: what a pipe
// gets. Clean has made tabs and line breaks in cells visible, so that the
// columns hold.
func (t *Table) WriteTSV(w io.Writer) error {
	var b bytes.Buffer
	for _, row := range t.Rows {
		for i, cell := range row {
			if i > 0 {
				b.WriteByte('\t')
			}
			b.WriteString(Clean(cell))
		}
		b.WriteByte('\n')
	}
	_, err := w.Write(b.Bytes())
	return err
}
