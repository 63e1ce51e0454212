package spec

import "strings"

// awk and sed, whose program is an argument without -c or -e.

// filterWords are the words of a command that are program text of awk or sed.
func filterWords(words []cmdWord) []int {
	var all []int
	if printers[words[0].name()] {
		return nil
	}
	for i, w := range words {
		var text []int
		switch w.name() {
		case "awk", "gawk", "mawk", "nawk":
			text = filterProgram(words[i+1:], "Fvi", "", "fE", "--source")
		case "sed", "gsed":
			text = filterProgram(words[i+1:], "l", "i", "f", "--expression")
		}
		for _, k := range text {
			all = append(all, i+1+k)
		}
	}
	return all
}

// filterProgram finds the program text of awk and sed: what -e and its long
// form give, or the first argument unless a file gives the program. The
// letters are those of options with another argument, with one only behind
// them, and with a file.
func filterProgram(words []cmdWord, args, attached, file, long string) (text []int) {
	given := false
	for i := 0; i < len(words); i++ {
		w := words[i]
		switch {
		case w.text == "--" && w.static:
			if !given {
				text = append(text, i+1)
			}
			return text
		case strings.HasPrefix(w.text, long+"="):
			given = true
			text = append(text, i)
		case w.static && w.text == long:
			given = true
			i++
			text = append(text, i)
		case strings.HasPrefix(w.text, "--"):
			if strings.HasPrefix(w.text, "--file") {
				given = true
				if w.static && w.text == "--file" {
					i++
				}
			}
		case len(w.text) > 1 && w.text[0] == '-':
			// sed -i '' of the BSDs
			if w.static && w.text == "-i" && attached == "i" && i+1 < len(words) && words[i+1].static && words[i+1].text == "" {
				i++
				continue
			}
		letters:
			for k := 1; k < len(w.text); k++ {
				c := w.text[k]
				next := k == len(w.text)-1 && w.static // the argument is the next word
				switch {
				case strings.IndexByte(attached, c) >= 0:
					break letters
				case strings.IndexByte(args, c) >= 0:
					if next {
						i++
					}
					break letters
				case strings.IndexByte(file, c) >= 0:
					given = true
					if next {
						i++
					}
					break letters
				case c == 'e':
					given = true
					if next {
						i++
					}
					text = append(text, i)
					break letters
				}
			}
		case !given:
			return append(text, i)
		default:
			return text
		}
	}
	return text
}
