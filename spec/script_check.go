package spec

import (
	"fmt"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// checkReferences parses a rewritten script and says what is wrong with its
// references: each must be an expansion in double quotes or in a here-document,
// outside arithmetic. It is the second look at what place decided.
func checkReferences(text string, lang syntax.LangVariant) string {
	file, err := parseShell(text, lang)
	if err != nil {
		return err.Error()
	}
	why, seen := "", 0
	var stack []syntax.Node
	syntax.Walk(file, func(n syntax.Node) bool {
		if n == nil {
			stack = stack[:len(stack)-1]
			return true
		}
		stack = append(stack, n)
		p, ok := n.(*syntax.ParamExp)
		if !ok || p.Param == nil || !strings.HasPrefix(p.Param.Value, scriptVar) {
			return true
		}
		seen++
		quoted := false
		for i := len(stack) - 2; i >= 0; i-- {
			switch a := stack[i].(type) {
			case *syntax.DblQuoted:
				quoted = true
			case *syntax.Redirect:
				quoted = quoted || a.Hdoc != nil && stack[i+1] == syntax.Node(a.Hdoc)
			case *syntax.CmdSubst, *syntax.ProcSubst:
				if !quoted {
					why = "a reference is not quoted"
				}
			case *syntax.ArithmExp, *syntax.ArithmCmd, *syntax.LetClause:
				why = "a reference is in arithmetic"
			}
		}
		if !quoted {
			why = "a reference is not quoted"
		}
		return true
	})
	if want := strings.Count(text, "${"+scriptVar); seen != want && why == "" {
		why = fmt.Sprintf("%d references are expansions, of %d", seen, want)
	}
	return why
}
