// Package github writes what GitHub Actions shows of a run: the step summary,
// annotations, outputs and masks. It knows their limits: a summary over 1 MiB
// is dropped as a whole, and of more than ten annotations the rest is, without
// a word.
package github
