package main

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"github.com/coiled-jobs/coiled-jobs/engine"
	"github.com/coiled-jobs/coiled-jobs/hardware"
	"github.com/coiled-jobs/coiled-jobs/spec"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

// shownTypes is how many types are listed without --all.
const shownTypes = 12

// instancesOptions are the flags of instances.
type instancesOptions struct {
	app       *app
	file      string
	params    []string
	functions []string
	hardware  map[string]string // the flags that were given, as keys of hardware
	all, json bool
}

// hardwareFlags are the flags that stand for keys of hardware.
var hardwareFlags = []struct{ flag, key, usage string }{
	{"cpu", "cpu", "CPUs: `n` or lo-hi"},
	{"memory", "memory", "memory: a `size` (within 10 %) or lo-hi, such as 16GiB or 16GiB-64GiB"},
	{"gpu", "gpu", "GPUs: true for one NVIDIA T4, a `count`, or a model"},
	{"vm-type", "vm_type", "only these `types`: a,b"},
	{"region", "region", "the `region`"},
	{"spot-policy", "spot_policy", "spot, on-demand or spot_with_fallback: by which `price`"},
	{"disk-size", "disk_size", "`size` of the disk"},
}

func newInstancesCmd(a *app, runF func(context.Context, *instancesOptions) error) *cobra.Command {
	o := &instancesOptions{app: a}
	var arm bool
	values := make([]string, len(hardwareFlags))
	cmd := &cobra.Command{
		Use:   "instances [FILE]",
		Short: "Show which instance types would be chosen, why, and their prices",
		Long: `Show which EC2 instance types would be chosen for some hardware, or for the functions of a pipeline file,
cheapest first, with their prices, and why others were left out. Burstable types and those of previous generations are
only chosen where vm_type names them. Nothing is rented; without an AWS account approximate prices are shown.`,
		Example: "  " + program + " instances --cpu 4 --memory 16GiB\n  " + program + " instances --gpu true --region eu-west-1\n  " + program + " instances pipeline.yaml",
		Args:    arguments(0, 1, "a pipeline file"), ValidArgsFunction: completePipelines,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.hardware = map[string]string{}
			for i, f := range hardwareFlags {
				if cmd.Flags().Changed(f.flag) {
					o.hardware[f.key] = values[i]
				}
			}
			if cmd.Flags().Changed("arm") {
				o.hardware["arm"] = fmt.Sprint(arm)
			}
			if len(args) > 0 {
				o.file = args[0]
				if len(o.hardware) > 0 {
					return usagef("a file says by itself which hardware it wants; leave out the file or the flags")
				}
			} else if len(o.params)+len(o.functions) > 0 {
				return usagef("--param and --function belong to a pipeline file, and there is none")
			}
			return runF(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	for i, h := range hardwareFlags {
		f.StringVar(&values[i], h.flag, "", h.usage)
	}
	f.BoolVar(&arm, "arm", false, "ARM machines")
	f.StringArrayVar(&o.params, "param", nil, "set a parameter of the file, `name=value` (repeatable)")
	f.StringSliceVar(&o.functions, "function", nil, "only this `function` of the file and what it needs")
	f.BoolVar(&o.all, "all", false, "list all types that would do")
	f.BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

// instancesLine is a choice in the JSON of instances.
type instancesLine struct {
	Functions []string              `json:"functions,omitempty"`
	Region    string                `json:"region"`
	Request   string                `json:"request"`
	Choices   []instanceLine        `json:"choices"`
	LeftOut   []hardware.LeftOut    `json:"left_out"`
	Notes     []string              `json:"notes"`
	choice    engine.HardwareChoice // behind it
}

// instanceLine is a type in it, with the price of a machine: instance, disk
// and public address.
type instanceLine struct {
	hardware.Choice
	SpotPerHour     float64 `json:"spot_machine_per_hour,omitempty"`
	OnDemandPerHour float64 `json:"on_demand_machine_per_hour"`
}

func runInstances(ctx context.Context, o *instancesOptions) error {
	a := o.app
	e := a.pricer(ctx)
	var choices []engine.HardwareChoice
	if o.file != "" {
		if err := checkFile(o.file); err != nil {
			return err
		}
		params, err := parseParams(o.params)
		if err != nil {
			return err
		}
		var warnings []string
		if choices, warnings, err = e.Hardware(ctx, engine.ApplyOptions{File: o.file, Params: params, Functions: o.functions}); err != nil {
			return err
		}
		for _, w := range warnings {
			fmt.Fprintln(a.messages, "warning: "+ui.Clean(w))
		}
	} else {
		h, err := o.parse()
		if err != nil {
			return err
		}
		c, err := e.HardwareFor(ctx, h)
		if err != nil {
			return err
		}
		choices = append(choices, c)
	}
	lines := make([]instancesLine, 0, len(choices))
	for _, c := range choices {
		lines = append(lines, o.line(c))
	}
	if o.json {
		if o.file == "" {
			return a.printJSON(lines[0])
		}
		return a.printJSON(lines)
	}
	for i, l := range lines {
		if i > 0 {
			fmt.Fprintln(a.stdout)
		}
		if err := o.print(l); err != nil {
			return err
		}
	}
	return nil
}

func (o *instancesOptions) line(c engine.HardwareChoice) instancesLine {
	l := instancesLine{Functions: c.Functions, Region: c.Region, Request: c.Selection.Request.String(), LeftOut: c.Selection.LeftOut,
		Notes: append(append([]string{}, c.Selection.Notes...), c.Catalogue.Notes...), choice: c}
	if l.LeftOut == nil {
		l.LeftOut = []hardware.LeftOut{}
	}
	rates := hardware.RatesOf(c.Region)
	for _, ch := range c.Selection.Choices {
		x := instanceLine{Choice: ch, OnDemandPerHour: rates.MachineHour(ch.OnDemand, c.DiskGB)}
		if p, _ := ch.CheapestSpot(); p > 0 {
			x.SpotPerHour = rates.MachineHour(p, c.DiskGB)
		}
		l.Choices = append(l.Choices, x)
	}
	return l
}

func (o *instancesOptions) print(l instancesLine) error {
	a := o.app
	head := l.Request + ", in " + l.Region
	if len(l.Functions) > 0 {
		head = strings.Join(l.Functions, ", ") + ": " + head
	}
	if _, err := fmt.Fprintln(a.stdout, ui.Clean(head)); err != nil {
		return err
	}
	t := &ui.Table{Header: []string{"TYPE", "CPUS", "MEMORY", "GPUS", "SPOT/H", "ZONE", "ON DEMAND/H", "WITH DISK AND ADDRESS", "WHY"},
		Right: []bool{false, true, true, false, true, false, true, true, false}}
	shown := l.Choices
	if !o.all && len(shown) > shownTypes {
		shown = shown[:shownTypes]
	}
	for _, c := range shown {
		row := []string{c.Name, ui.Count(c.VCPUs), gibText(float64(c.MemoryMiB) / 1024), "", "", "", about(c.OnDemand, c.GuessedOnDemand),
			hourly(c.OnDemandPerHour), c.Why}
		if c.GPUs > 0 {
			row[3] = fmt.Sprintf("%d x %s", c.GPUs, c.GPUModel)
		}
		if p, zone := c.CheapestSpot(); p > 0 {
			row[4], row[5] = about(p, c.GuessedSpot), zone
			if l.choice.Selection.Request.Market != hardware.OnDemand {
				row[7] = hourly(c.SpotPerHour)
			}
		}
		t.Rows = append(t.Rows, row)
	}
	if err := t.Write(a.stdout, a.style(a.stdout), width(a.stdout)); err != nil {
		return err
	}
	var b strings.Builder
	if n := len(l.Choices) - len(shown); n > 0 {
		fmt.Fprintf(&b, "and %s, up to %s an hour; --all lists them\n", ui.Plural(n, "more type"), hourly(l.Choices[len(l.Choices)-1].Price))
	}
	if len(l.LeftOut) > 0 {
		b.WriteString("left out:\n")
	}
	for _, x := range l.LeftOut {
		fmt.Fprintf(&b, "  %5s  %s (such as %s, %s an hour)\n", ui.Count(x.Types), x.Reason, x.Example, hourly(x.Price))
	}
	for _, n := range l.Notes {
		b.WriteString("note: " + n + "\n")
	}
	_, err := fmt.Fprint(a.stdout, b.String())
	return err
}

// about marks a price that is not the cloud's own.
func about(price float64, guessed bool) string {
	if guessed {
		return "~" + hourly(price)
	}
	return hourly(price)
}

// span is a range as a flag has it: 2-8, 16GiB-64GiB, [2, 8] or 2,8.
var span = regexp.MustCompile(`^\[?\s*([0-9.]+ ?[A-Za-z]*)\s*[-,]\s*([0-9.]+ ?[A-Za-z]*)\s*\]?$`)

// parse reads the flags as a pipeline file would be read: they mean the same.
func (o *instancesOptions) parse() (spec.Hardware, error) {
	node := &yaml.Node{Kind: yaml.MappingNode}
	plain := func(text string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: text} }
	list := func(texts ...string) *yaml.Node {
		n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, text := range texts {
			n.Content = append(n.Content, plain(strings.TrimSpace(text)))
		}
		return n
	}
	for _, f := range append(hardwareFlags, struct{ flag, key, usage string }{"arm", "arm", ""}) {
		text, ok := o.hardware[f.key]
		if !ok {
			continue
		}
		v := plain(text)
		switch m := span.FindStringSubmatch(text); {
		case f.key == "vm_type":
			v = list(strings.Split(text, ",")...)
		case m != nil && (f.key == "cpu" || f.key == "memory"):
			v = list(m[1], m[2])
		}
		node.Content = append(node.Content, plain(f.key), v)
	}
	text, err := yaml.Marshal(map[string]any{"name": "instances", "functions": map[string]any{"f": map[string]any{"command": []string{"true"}, "hardware": node}}})
	if err != nil {
		return spec.Hardware{}, err
	}
	doc, _ := spec.Parse(text, "flags")
	p, problems := doc.Bind(spec.BindOptions{})
	if problems.Err() != nil {
		var all []string
		for _, x := range problems {
			all = append(all, strings.NewReplacer("functions.f.hardware.", "--", "vm_type", "vm-type", "spot_policy", "spot-policy", "disk_size", "disk-size").Replace(x.Message))
		}
		return spec.Hardware{}, usagef("%s", strings.Join(all, "\n"))
	}
	return p.Function("f").Hardware, nil
}
