// Package bundle carries the files of a run to its machines: those beside the
// pipeline file (Scan, Push, Pull), and the local files that maps fan out over
// (PushFiles, OpenFiles).
//
// Everything is addressed by content. A Manifest says which files there are and
// what is in them; its hash is the name of that version of the code. In the
// store lie
//
//	code/<hash>.json     the manifest, and where its contents lie
//	code/packs/<hash>    contents of many small files, compressed in frames
//	code/latest/<name>   the last manifest that was pushed under a name: a hint
//	files/<sha256>       the content of one larger file, as it is
//	files/index/<hash>   which content has which path, for the items of a map
//
// Objects under code/packs, files and code/<hash>.json never change. Pushing
// sends only contents that the versions known so far do not have. Whatever is
// fetched is checked against its hash before it gets its name.
package bundle
