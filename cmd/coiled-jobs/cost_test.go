package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/executor"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/task"
)

// The JSON of a result says what it cost where machines were rented.
func TestRowCost(t *testing.T) {
	t.Parallel()
	r := row{TaskReport: executor.TaskReport{Index: 3, Status: task.Succeeded, Attempts: 1, Seconds: 1.5}}
	const plain = `{"index":3,"item":null,"status":"succeeded","result":null,"attempts":1,"cause":null,"seconds":1.5`
	if got := string(appendRow(nil, &r)); got != plain+"}" {
		t.Errorf("here: %s", got)
	}
	r.paid = true
	if got := string(appendRow(nil, &r)); got != plain+`,"cost_usd":0}` {
		t.Errorf("from a cache: %s", got)
	}
	r.cost = 0.00001234567
	if got := string(appendRow(nil, &r)); got != plain+`,"cost_usd":0.00001235}` {
		t.Errorf("on a machine: %s", got)
	}
}

func TestMaxCost(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]float64{"none": engine.NoLimit, "0": 0, "$2.50": 2.5, "20": 20} {
		if got, err := parseDollars(text); err != nil || *got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"-1", "None", "", "inf", "1e999"} {
		if got, err := parseDollars(bad); err == nil {
			t.Errorf("%q is taken as %g", bad, *got)
		}
	}
}

// Who rents is told what stands against it.
func TestQuoteIsToldWithItsWarnings(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	a := &app{messages: &messages{w: &b}}
	a.tellQuote(&engine.Planned{Pipeline: &spec.Pipeline{Name: "taxi"}}, &engine.Quote{Limit: 5,
		Kinds:    []engine.QuoteKind{{Functions: []string{"clean"}, Region: "us-east-1", Type: "m6i.xlarge", Most: 33, Price: 0.085}},
		Warnings: []string{"your account may start 5 spot vCPUs"}})
	want := "taxi: clean on up to 33 x m6i.xlarge in us-east-1, about $0.085 an hour each; stops at $5.00\nwarning: your account may start 5 spot vCPUs\n"
	if got := b.String(); !strings.HasSuffix(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
