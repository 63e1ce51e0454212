package cloud

import "time"

// S3Location is a bucket and how to speak to it.
type S3Location struct {
	Bucket        string
	RequesterPays bool // the caller agrees to pay for requests and transfer
	Anonymous     bool // unsigned requests, for public buckets
}

// S3Object is a listed object.
type S3Object struct {
	Key      string
	Size     int64
	Modified time.Time
	ETag     string // without quotes
}

// S3Look is what lies at a key, or below it, at one moment.
type S3Look struct {
	Found    bool
	Tag      string    // tells one content from another
	Modified time.Time // of the newest
	Asked    time.Time // when this was, by the server's clock; zero: it did not say
}

// Since says whether something is there that was written after an earlier
// look. The times of S3 are whole seconds: what was written in the second of
// that look counts.
func (l S3Look) Since(before S3Look) bool {
	return l.Found && (!before.Found || l.Tag != before.Tag || !l.Modified.Equal(before.Modified) ||
		!before.Asked.IsZero() && !l.Modified.Before(before.Asked.Truncate(time.Second)))
}

// S3Query says which objects of a bucket are asked for.
type S3Query struct {
	// Roots is where to look. They are sorted and none is a prefix of another.
	Roots []S3Root
	// Match accepts keys. It may be called from several goroutines.
	Match func(key string) bool
	// Folder says what may match below a folder, whose name ends in "/". It
	// may be called from several goroutines. nil: everything may.
	Folder func(folder string) FolderMatch
}

// S3Root is the keys that start with Prefix; if Exact, the key Prefix alone.
type S3Root struct {
	Prefix string
	Exact  bool
}

// FolderMatch is what a query expects below a folder.
type FolderMatch uint8

// The kinds of folders.
const (
	FolderNone FolderMatch = iota // nothing below it can match
	FolderSome                    // only some of the folders in it can match
	FolderAll                     // most of what is below it can match
)
