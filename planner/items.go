package planner

// Items is the resolved list of items of a map, in index order. It is
// immutable and safe for concurrent use.
type Items interface {
	// Len is the number of tasks (after batch).
	Len() int
	// Each calls fn for the items from to to-1 in order; an error of fn ends it
	// and is returned. Items are values of package value; a batch is []any.
	Each(from, to int, fn func(index int, item any) error) error
	// Bytes is the sum of the sizes of file items, 0 if there are none.
	Bytes() int64
	// Elements is the number of items before batch.
	Elements() int
}
