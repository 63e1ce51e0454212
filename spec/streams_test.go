package spec

import (
	"strings"
	"testing"
)

// Which maps over results stream, and which wait.
func TestStreams(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]bool{
		"map: {from: a}, run: echo":                                                       true,
		"map: {from: a, where: 'item > 1'}, run: echo":                                    true,
		"map: {from: a, sort: none}, run: echo":                                           true,
		"map: {from: a}, needs: b, run: 'echo ${{ needs.b.result }} ${{ index }}'":        true,
		"map: {from: a, sort: name}, run: echo":                                           false,
		"map: {from: a, limit: 5}, run: echo":                                             false,
		"map: {from: a, batch: 5}, run: echo":                                             false,
		"map: {from: a}, if: params.x, run: echo":                                         false,
		"map: {from: a}, needs: a, run: echo":                                             false,
		"map: {from: a}, run: 'echo ${{ count }}'":                                        false,
		"map: {from: a}, run: 'echo ${{ needs.a.count }}'":                                false,
		"map: {from: a}, command: [echo, '${{ needs.a.failed }}']":                        false,
		"map: {from: a}, run: echo, env: {N: '${{ count }}'}":                             false,
		"map: {from: a}, python: 'm:f', kwargs: {n: ['${{ count }}']}":                    false,
		"map: {from: a}, run: echo, outputs: ['out-${{ count }}']":                        false,
		"map: {from: a, where: 'needs.a.count > 1'}, run: echo":                           false,
		"map: {matrix: {x: {from: a}, y: [1, 2]}}, run: echo":                             false,
		"map: {items: '${{ needs.a.results }}'}, needs: a, run: echo":                     false,
		"map: {zip: {x: {from: a}, y: {range: 2}}}, command: [echo, '${{ item.x }}', hi]": false,
	} {
		t.Run(body, func(t *testing.T) {
			t.Parallel()
			p := mustBind(t, "name: x\nparams: {x: true}\nfunctions:\n  a: {map: {range: 3}, run: echo}\n  b: {run: echo}\n  f: {"+body+"}\n", BindOptions{})
			f := p.Function("f")
			from, ok := f.Streams()
			if ok != want || ok && from != "a" {
				t.Errorf("streams %v from %q", ok, from)
			}
			if needs := f.AllNeeds(); !strings.Contains(strings.Join(needs, " "), "a") {
				t.Errorf("needs %v", needs)
			}
			for _, part := range f.Map.Parts {
				if part.Map.Form == FormFrom && !part.Map.Barrier {
					t.Error("from in a product does not wait")
				}
			}
		})
	}
}

// Which of them keep the index of the result, whether they wait or not.
func TestFollows(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]bool{
		"map: {from: a, where: 'item > 1'}, run: echo":                   true,
		"map: {from: a}, if: params.x, run: echo":                        true,
		"map: {from: a}, run: 'echo ${{ count }} ${{ needs.a.failed }}'": true,
		"map: {from: a, sort: name}, run: echo":                          false,
		"map: {from: a, limit: 5}, run: echo":                            false,
		"map: {from: a, batch: 5}, run: echo":                            false,
		"map: {matrix: {x: {from: a}, y: [1, 2]}}, run: echo":            false,
		"map: {items: '${{ needs.a.results }}'}, needs: a, run: echo":    false,
	} {
		p := mustBind(t, "name: x\nparams: {x: true}\nfunctions:\n  a: {map: {range: 3}, run: echo}\n  f: {"+body+"}\n", BindOptions{})
		if from, ok := p.Function("f").Follows(); ok != want || ok && from != "a" {
			t.Errorf("%s: follows %v from %q", body, ok, from)
		}
	}
}
