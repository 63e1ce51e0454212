// Package report writes a run as one HTML file that needs nothing else: no
// script, no request to anywhere, readable in ten years.
//
// Collect reads a run into Data, whose size does not depend on the number of
// tasks; Render writes Data. Everything that comes from outside is escaped by
// html/template, and the page forbids itself to run or load anything.
package report
