package planner_test

import (
	"strings"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/planner"
)

// What is wrong with outputs is said before anything runs, as far as it is known.
func TestOutputsOfPlans(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		"f: {run: 'true', outputs: [x, ./x, y]}":                                                             "",
		"f: {map: {range: 3}, run: 'true', outputs: x}":                                                      `p.yaml:4:46: functions.f.outputs: task 0 and task 1 would both write "x"`,
		"f: {map: {range: 1}, run: 'true', outputs: x}":                                                      "",
		"f: {map: {range: 4}, run: 'true', outputs: 'd/../x${{ index % 3 }}'}":                               `task 0 and task 3 would both write "x0"`,
		"f: {map: {items: [a/x, b/x]}, run: 'true', outputs: 'out/${{ basename(item) }}'}":                   `task 0 and task 1 would both write "out/x"`,
		"f: {map: {items: [a, b]}, run: 'true', outputs: 's3://b/${{ params.up }}'}":                         `would both write "s3://b/../x"`,
		"f: {run: 'true', outputs: '${{ params.up }}'}":                                                      `functions.f.outputs: output "../x" is not below the working directory`,
		"f: {run: 'true', outputs: x}\n  g: {run: 'true', outputs: x}":                                       `functions.g.outputs: "x" is also written by f`,
		"f: {run: 'true', if: params.b, outputs: x}\n  g: {run: 'true', if: not params.b, outputs: x}":       "",
		"f: {map: {range: 2}, run: 'true'}\n  g: {map: {from: f}, run: 'true', outputs: 'x${{ item }}'}":     "", // not known yet
		"f: {map: {range: 2}, run: 'true'}\n  g: {map: {from: f}, run: 'true', outputs: 'x'}":                "functions.g.outputs: task 0 and task 1",
		"f: {map: {range: 2}, env: {A: '${{ index }}'}, run: 'true', outputs: 'x${{ env.A }}'}\nenv: {A: b}": "",
		"f: {map: {range: 300000}, run: 'true', outputs: 'x${{ index % 250000 }}'}":                          "", // left to the tasks
	} {
		p := bind(t, "name: x\nparams: {up: ../x, b: true}\nfunctions:\n  "+body+"\n", "p.yaml")
		_, err := planner.Make(t.Context(), p, planner.Inputs{Dir: t.TempDir()}, planner.Options{})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s:\n%v\nwant %s", body, err, want)
		}
	}
}
