package main

import (
	"bufio"
	"fmt"
	"strings"
)

// confirm asks a question on the terminal; only a clear yes is one.
func (a *app) confirm(question string) bool {
	fmt.Fprintf(a.messages, "%s [y/N] ", question)
	line, err := bufio.NewReader(a.stdin).ReadString('\n')
	if err != nil && line == "" {
		fmt.Fprintln(a.messages)
		return false
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return true
	}
	return false
}
