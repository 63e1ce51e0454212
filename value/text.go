package value

// Text is v as a template renders it: text as it is, a *File as its path,
// lists and mappings as compact JSON, nil as "null".
func Text(v any) string { return "" }

// HasNUL says whether some text in v (keys too) has a NUL byte.
func HasNUL(v any) bool { return false }

// Scalar is the value of a plain YAML scalar in items and param defaults:
// true, false and null (also "~" and nothing) are what they are, a number is
// one only if it is written as JSON writes it and prints back identically,
// everything else is text.
func Scalar(source string) any { return source }
