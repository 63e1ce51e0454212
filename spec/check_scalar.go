package spec

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// costValue is limits.cost.
type costValue struct {
	none    bool
	dollars float64
}

// gpuValue is hardware.gpu.
type gpuValue struct {
	count int
	model string
}

// pythonTarget is python.
type pythonTarget struct{ module, fn string }

// checkScalar reads a scalar that is there and no list or mapping.
func (d *decoder) checkScalar(f *field, n *node, s *shape) {
	if s.nonEmpty && strings.TrimSpace(n.text) == "" {
		d.report(n.pos, f.path, "the text is empty: expected %s", s.what)
		return
	}
	var v any
	var why string
	switch s.kind {
	case kindText, kindLiteral:
		if s.kind == kindLiteral && HasTemplate(n.text) {
			d.report(n.pos, f.path, "a template cannot stand here: write %s", s.what)
			return
		}
		if len(s.enum) > 0 && !slices.Contains(s.enum, n.text) {
			why = strings.Trim(d.suggest(n.text, s.enum), " ()")
			break
		}
		v = n.text
	case kindInt:
		v, why = d.readInt(n, s)
	case kindNumber:
		v, why = d.readNumber(n, s)
	case kindBool:
		v, why = readBool(n)
	case kindDuration:
		v, why = readUnit(parseDuration(n.text))
	case kindSize:
		v, why = readUnit(parseSize(n.text))
	case kindShare:
		v, why = d.readShare(n)
	case kindPercent:
		if pc, ok := parsePercent(n.text); ok && pc <= 100 {
			v = pc
		} else if n.text == "0" {
			v = 0.0
		}
	case kindFactor:
		if x, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(n.text), "x"), 64); err == nil && x >= 1 && x <= 1000 {
			v = x
		}
	case kindCost:
		if n.text == "none" {
			v = costValue{none: true}
		} else if x, w := d.readNumber(n, &shape{hasMin: true}); x != nil {
			v = costValue{dollars: x.(float64)}
		} else {
			why = w
		}
	case kindGPU:
		v, why = readGPU(n)
	case kindPython:
		v, why = readTarget(n.text)
	case kindTemplate:
		d.compileTemplate(f, n, s)
		return
	case kindCond:
		if s.scope != scopeWhere {
			d.compileCondition(f, n, s)
			return
		}
		v = n // what item is has to be known first
	case kindScript:
		v = n // its shell has to be known first
	}
	if v == nil {
		d.wrong(n, s, f.path, why)
		return
	}
	f.v, f.ok = v, true
}

// quotedNumber says that quotes around a number are all that is wrong.
func quotedNumber(n *node) string {
	if _, err := strconv.ParseFloat(n.text, 64); err == nil && !n.plain && n.src != nil {
		return "remove the quotes"
	}
	return ""
}

func (d *decoder) readInt(n *node, s *shape) (any, string) {
	if !n.plain && n.src != nil {
		return nil, quotedNumber(n)
	}
	v, err := strconv.Atoi(n.text)
	if err != nil {
		// A template may compute 6.0 where 6 is meant.
		x, err := strconv.ParseFloat(n.text, 64)
		if n.src != nil || err != nil || x != math.Trunc(x) || math.Abs(x) > 1<<52 {
			return nil, ""
		}
		v = int(x)
	}
	if s.hasMin && float64(v) < s.min {
		return nil, "at least " + strconv.FormatFloat(s.min, 'f', -1, 64)
	}
	if s.min == -1 && v == 0 {
		return nil, "at least 1"
	}
	return v, ""
}

func (d *decoder) readNumber(n *node, s *shape) (any, string) {
	if !n.plain && n.src != nil {
		return nil, quotedNumber(n)
	}
	v, err := strconv.ParseFloat(n.text, 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return nil, ""
	}
	if s.hasMin && v < s.min {
		return nil, "at least " + strconv.FormatFloat(s.min, 'f', -1, 64)
	}
	return v, ""
}

func readBool(n *node) (any, string) {
	if n.plain || n.src == nil {
		switch n.text {
		case "true", "True", "TRUE":
			return true, ""
		case "false", "False", "FALSE":
			return false, ""
		}
	}
	switch strings.ToLower(n.text) {
	case "yes", "on", "y":
		return nil, "write true"
	case "no", "off", "n":
		return nil, "write false"
	case "true", "false":
		return nil, "remove the quotes"
	}
	return nil, ""
}

// readUnit drops the value if there is a problem. That text is no duration or
// size at all is said already.
func readUnit[T time.Duration | int64](v T, why string) (any, string) {
	switch why {
	case "":
	case noDuration, noSize:
		return nil, ""
	default:
		return nil, why
	}
	return v, ""
}

func (d *decoder) readShare(n *node) (any, string) {
	if pc, ok := parsePercent(n.text); ok {
		if pc > 100 {
			return nil, "at most 100%"
		}
		return Share{Percent: pc, IsPercent: true}, ""
	}
	v, why := d.readInt(n, &shape{hasMin: true})
	if v == nil {
		return nil, why
	}
	return Share{N: v.(int)}, ""
}

func readGPU(n *node) (any, string) {
	v, why := readBool(n)
	switch {
	case v == true:
		return gpuValue{count: 1, model: "T4"}, ""
	case v == false:
		return gpuValue{}, ""
	case why != "":
		return nil, why // no model is called yes
	}
	if i, err := strconv.Atoi(n.text); err == nil {
		if i < 0 || i > 64 {
			return nil, ""
		}
		return gpuValue{count: i}, ""
	}
	if first := []rune(n.text + " ")[0]; !unicode.IsLetter(first) {
		return nil, ""
	}
	return gpuValue{count: 1, model: n.text}, ""
}

// readTarget reads module:function or path/file.py:function.
func readTarget(s string) (any, string) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		if dot := strings.LastIndexByte(s, '.'); dot > 0 && dot < len(s)-1 && s[dot:] != ".py" {
			return nil, fmt.Sprintf("did you mean %q?", s[:dot]+":"+s[dot+1:])
		}
		return nil, "the function is missing"
	}
	module, fn := s[:i], s[i+1:]
	if strings.HasSuffix(fn, "()") {
		return nil, "leave out the parentheses; arguments go into args and kwargs"
	}
	if !isPythonName(fn) {
		return nil, fmt.Sprintf("%q is not the name of a function", fn)
	}
	if strings.HasSuffix(module, ".py") && len(module) > len(".py") {
		return pythonTarget{module, fn}, ""
	}
	if strings.ContainsAny(module, `/\`) {
		return nil, "a path ends in .py; a module has dots: pkg.mod:function"
	}
	for _, part := range strings.Split(module, ".") {
		if !isPythonName(part) {
			return nil, fmt.Sprintf("%q is neither a module nor a path that ends in .py", module)
		}
	}
	return pythonTarget{module, fn}, ""
}

func isPythonName(s string) bool {
	for i, r := range s {
		if r != '_' && !unicode.IsLetter(r) && (i == 0 || !unicode.IsDigit(r)) {
			return false
		}
	}
	return s != ""
}

// reservedEnv are the variables that every task gets from coiled-jobs.
var reservedEnv = []string{"RUN", "PIPELINE", "FUNCTION", "INDEX", "COUNT", "ATTEMPT", "ITEM", "ITEM_FILE", "RESULT", "NEEDS"}

// checkName checks a key that the file chooses.
func (d *decoder) checkName(key *node, rule nameRule, p *keyPath) bool {
	name := key.text
	if HasTemplate(name) {
		d.report(key.pos, p, "a template cannot stand in a key")
		return false
	}
	var what, advice string
	switch rule {
	case nameIdent:
		if isIdentifier(name) {
			return true
		}
		what = "a name has letters, digits and _ and starts with no digit"
		if fixed := strings.NewReplacer("-", "_", " ", "_", ".", "_").Replace(name); isIdentifier(fixed) {
			advice = fmt.Sprintf(": write %q", fixed)
		}
	case nameEnv:
		if rest, ok := strings.CutPrefix(name, "COILED_JOBS_"); ok && slices.Contains(reservedEnv, rest) {
			d.report(key.pos, p, "coiled-jobs sets this variable itself: choose another name")
			return false
		}
		if isIdentifier(name) {
			return true
		}
		what = "the name of a variable has letters, digits and _ and starts with no digit"
	case namePython:
		if isPythonName(name) {
			return true
		}
		what = "a keyword argument has letters, digits and _ and starts with no digit"
	default:
		if name != "" || rule == nameReserved {
			return true
		}
		what = "the name is empty"
	}
	d.report(key.pos, p, "%s%s", what, advice)
	return false
}

// isPipelineName says whether s can name a pipeline.
func isPipelineName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && (c != '-' || i == 0) {
			return false
		}
	}
	return s != "" && len(s) <= 63
}
