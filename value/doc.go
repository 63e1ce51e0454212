// Package value holds the data that flows through a pipeline: parameters,
// items and results.
//
// A value is one of
//
//	nil, bool, int, float64, string, []any, map[string]any, *Object, *File
//
// Strings are bytes: a file name that is not UTF-8 is kept as it is. In JSON
// such bytes appear as surrogate escapes (\udc80 to \udcff), the convention of
// Python's surrogateescape, so that encoding and decoding lose nothing.
//
// The package has no dependencies and does no I/O.
package value
