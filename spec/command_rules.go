package spec

// pastedInto finds the arguments of a command in which a value would become a
// part of program text: ["sh", "-c", "echo ${{ item }}"]. An argument that is
// one template and nothing else is a program as a whole, by intent.
func pastedInto(command []*Value) []int {
	words := make([]cmdWord, len(command))
	for i, v := range command {
		w := cmdWord{text: v.Source, static: true}
		if t := v.Template; t != nil {
			w = cmdWord{holes: []int{i}}
			if len(t.parts) > 0 && t.parts[0].expr == nil {
				w.text = t.parts[0].text
			}
		}
		words[i] = w
	}
	if len(words) == 0 {
		return nil
	}
	var found []int
	for _, i := range programWords(words) {
		if i >= len(words) || !words[i].templated() {
			continue
		}
		if _, whole := command[i].Template.single(); !whole {
			found = append(found, i)
		}
	}
	return found
}
