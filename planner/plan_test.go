package planner_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/coiled-jobs/coiled-jobs/planner"
	"github.com/coiled-jobs/coiled-jobs/spec"
)

var update = flag.Bool("update", false, "write the golden files anew")

// bind parses and binds a pipeline.
func bind(t testing.TB, src, file string) *spec.Pipeline {
	t.Helper()
	doc, problems := spec.Parse([]byte(src), file)
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	p, problems := doc.Bind(spec.BindOptions{})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestGolden plans testdata/plans/*.yaml and compares with the .json beside
// it: the report, then the lines of plan --items, or the error.
func TestGolden(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/plans/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no plans", err)
	}
	dir, err := filepath.Abs("testdata/plans")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			t.Parallel()
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := planText(t, bind(t, string(src), filepath.Base(file)), dir)
			if again := planText(t, bind(t, string(src), filepath.Base(file)), dir); again != got {
				t.Errorf("a second plan differs:\n%s", cmp.Diff(got, again))
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".json"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}

func planText(t *testing.T, p *spec.Pipeline, dir string) string {
	t.Helper()
	plan, err := planner.Make(context.Background(), p, planner.Inputs{Dir: dir, Run: &spec.RunInfo{}}, planner.Options{})
	if err != nil {
		return err.Error() + "\n"
	}
	var b bytes.Buffer
	report, err := json.MarshalIndent(planner.NewReport(p, plan), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	b.Write(report)
	b.WriteByte('\n')
	for _, f := range plan.Functions {
		if f.Items == nil {
			continue
		}
		if err := planner.WriteItemsJSON(&b, f.Name, f.Items); err != nil {
			t.Fatal(err)
		}
	}
	return strings.ReplaceAll(b.String(), dir, "DIR")
}
