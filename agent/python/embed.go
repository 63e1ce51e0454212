// Package python holds the program that runs inside warm Python interpreters.
package python

import _ "embed"

// Worker is the source of the worker. Its comments describe how the agent and
// the worker speak to each other.
//
//go:embed worker.py
var Worker []byte
