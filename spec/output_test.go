package spec

import "testing"

func TestCheckOutput(t *testing.T) {
	t.Parallel()
	for p, ok := range map[string]bool{
		"a": true, "./a": true, "a/../b": true, "a b/ü": true, "d/": true, "..a": true, "s3://b/k": true, "s3://b/k/": true,
		"": false, ".": false, "..": false, "/a": false, "../a": false, "a/../../b": false, "a\x00": false,
		"s3://b": false, "s3:///k": false, "gs://b/k": false, "file:///a": false,
	} {
		if err := CheckOutput(p); (err == nil) != ok {
			t.Errorf("%q: %v", p, err)
		}
	}
	ps := Validate([]byte("name: x\nfunctions: {a: {run: echo, outputs: [ok, ../a, '${{ index }}', 'gs://b/k']}}"), "p.yaml")
	if len(ps) != 2 || ps[0].Pos.Col != 42 {
		t.Errorf("got %v", ps)
	}
}
