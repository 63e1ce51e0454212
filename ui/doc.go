// Package ui draws a run for people: the live view on a terminal, plain lines
// elsewhere, tables and the summary at the end.
//
// What is drawn is computed by pure functions of a report, a width and a
// time; Screen and Plain are the two things that write. Everything that comes
// from outside (names, messages, logs) passes through Clean or LogWriter, so
// that no file name can move the cursor, recolour the screen or forge a line.
package ui
