package spec

import (
	"strings"
	"testing"
)

func TestNamesOfTheCloudAndWebhooks(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		"functions: {f: {run: echo, hardware: {vm_type: [m6i.xlarge, u-6tb1.112xlarge, c7gn.metal], region: us-gov-west-1}}}": "",
		"functions: {f: {run: echo, hardware: {region: auto}}}":                                                               "",
		"functions: {f: {run: echo, hardware: {vm_type: xlarge}}}":                                                            "vm_type: expected an instance type",
		"functions: {f: {run: echo, hardware: {vm_type: [m6i.xlarge, 3]}}}":                                                   "vm_type[1]: expected an instance type such as m6i.xlarge, found 3",
		"functions: {f: {run: echo, hardware: {region: mars}}}":                                                               "region: expected a region",
		"notify: [{webhook: 'https://x/y'}]\nfunctions: {f: {run: echo}}":                                                     "",
		"notify: [{webhook: HOOK}]\nsecrets: [HOOK]\nfunctions: {f: {run: echo}}":                                             "",
		"notify: [{webhook: HOOK}]\nfunctions: {f: {run: echo}}":                                                              `notify[0].webhook: "HOOK" is no address`,
		"notify: [{webhook: 'ftp://x/y'}]\nfunctions: {f: {run: echo}}":                                                       "is no address",
	} {
		got := Validate([]byte("name: x\n"+body), "p.yaml").Error()
		if want == "" && got != Problems(nil).Error() || !strings.Contains(got, want) {
			t.Errorf("%s: %q", body, got)
		}
	}
}
