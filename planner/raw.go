package planner

// RawItem is the bytes of an item that JSON cannot hold as they are: of text
// and paths as they reach a program, of lists and mappings JSON whose strings
// have their bytes instead of surrogate escapes. False where the item's text
// is UTF-8 and nothing is lost.
func RawItem(item any) (raw []byte, ok bool) {
	if validText(item) {
		return nil, false
	}
	return rawText(item), true
}
