// Package planner turns a bound pipeline and its inputs into a Plan: per
// function the items of its map, and what apply would do with them.
//
// The planner lists files through the file system and S3 through an interface
// of its own. It is deterministic: the same inputs give the same items in the
// same order. Nothing is held in memory that could be computed or streamed: a
// range, a matrix or a zip is arithmetic; a listing is packed.
package planner
