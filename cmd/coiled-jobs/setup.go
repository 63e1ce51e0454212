package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/cloud"
	"github.com/coiled-jobs/coiled-jobs/cloud/aws"
	"github.com/coiled-jobs/coiled-jobs/ui"
)

// setupOptions are the flags of setup aws.
type setupOptions struct {
	app       *app
	aws       aws.SetupOptions
	remove    bool
	yes, json bool
	policy    string
}

func newSetupCmd(a *app, runF func(context.Context, *setupOptions) error) *cobra.Command {
	cmd := &cobra.Command{
		Use: "setup", Short: "Prepare a cloud account for runs, once",
		Args: arguments(1, 1, "the cloud: aws"),
		RunE: func(_ *cobra.Command, args []string) error {
			return usagef("setup %q: there is only \"%s setup aws\"; runs on this machine need no set-up", args[0], program)
		},
	}
	o := &setupOptions{app: a}
	sub := &cobra.Command{
		Use:   "aws",
		Short: "Make the bucket, roles and security group that runs on EC2 use",
		Long: `Shows what it will make, asks on a terminal, and makes it: a bucket for runs, roles for machines and
coordinators, a security group that lets nothing in. Nothing of it costs anything while no run lives. It can be
repeated: what is there is left alone. --delete takes it back.`,
		Args: arguments(0, 0, ""), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error { return runF(cmd.Context(), o) },
	}
	f := sub.Flags()
	f.StringVar(&o.aws.Region, "region", "", "where runs are (default: the configured one)")
	f.BoolVar(&o.yes, "yes", false, "do not ask")
	f.BoolVar(&o.json, "json", false, "print JSON")
	f.BoolVar(&o.remove, "delete", false, "take the set-up back; a bucket that is not empty stays")
	f.BoolVar(&o.aws.WithData, "with-data", false, "with --delete: the bucket with all its runs, too")
	f.StringArrayVar(&o.aws.Read, "read", nil, "s3://bucket/prefix that tasks may read, beside the store; repeatable")
	f.StringArrayVar(&o.aws.Write, "write", nil, "s3://bucket/prefix that tasks may read and write; repeatable")
	f.StringArrayVar(&o.aws.Secrets, "secret", nil, "ssm:/name, ssm:/prefix/* or secretsmanager:name that tasks may have; repeatable")
	f.BoolVar(&o.aws.Forget, "forget", false, "take back what earlier set-ups granted with --read, --write and --secret")
	f.StringVar(&o.policy, "policy", "", "print a policy for this account and do nothing: "+policyList())
	cmd.AddCommand(sub)
	return cmd
}

func policyList() string {
	names := make([]string, 0, len(aws.PolicyNames))
	for _, n := range aws.PolicyNames {
		names = append(names, n[0])
	}
	return strings.Join(names, ", ")
}

// setupJSON is the JSON of setup aws.
type setupJSON struct {
	Account string          `json:"account"`
	Region  string          `json:"region"`
	Store   string          `json:"store"`
	Done    bool            `json:"done"` // false: it was refused
	Items   []aws.SetupItem `json:"items"`
	Quotas  []quotaJSON     `json:"quotas,omitempty"`
}

type quotaJSON struct {
	Name  string `json:"name"`
	Code  string `json:"code"`
	Spot  bool   `json:"spot"`
	VCPUs *int   `json:"vcpus"` // null: not known
	Link  string `json:"link"`
}

func runSetup(ctx context.Context, o *setupOptions) error {
	a := o.app
	if o.aws.WithData && !o.remove {
		return usagef("--with-data belongs to --delete")
	}
	if o.policy != "" {
		return a.printPolicy(ctx, o)
	}
	plan := aws.PlanSetup
	if o.remove {
		plan = aws.PlanRemoval
	}
	s, err := plan(ctx, o.aws)
	if cloud.KindOf(err) == cloud.KindInvalid && ctx.Err() == nil {
		return usagef("%v", err)
	}
	if err != nil {
		return err
	}
	out := setupJSON{Account: s.Account.ID, Region: s.Account.Region, Store: "s3://" + s.Bucket, Items: s.Items}
	w := io.Writer(a.messages)
	if !o.json {
		w = a.stdout
	}
	if err := a.printSetup(w, s); err != nil {
		return err
	}
	if s.Changes() && !o.yes && isTerminal(a.stdin) && !a.confirm("Go on?") {
		return &exitError{code: exitCancelled, err: errors.New("nothing was done")}
	}
	err = s.Do(ctx, func(i aws.SetupItem) { fmt.Fprintf(a.messages, "%sd %s %s\n", i.State, i.Kind, i.Name) })
	if err != nil {
		return fmt.Errorf("%w (what was done stays; the same command goes on from there)", err)
	}
	out.Done = true
	if o.remove {
		if o.json {
			return a.printJSON(out)
		}
		return nil
	}
	limits := s.Limits(ctx)
	if o.json {
		for _, l := range limits {
			q := quotaJSON{Name: l.Name, Code: l.Code, Spot: l.Spot, Link: l.Link}
			if l.Err == nil {
				q.VCPUs = &l.VCPUs
			}
			out.Quotas = append(out.Quotas, q)
		}
		return a.printJSON(out)
	}
	fmt.Fprintf(a.stdout, "\nquotas of the account in %s:\n", s.Account.Region)
	for _, l := range limits {
		fmt.Fprintf(a.stdout, "  %s\n    raise it at %s\n", l, l.Link)
	}
	_, err = fmt.Fprintf(a.stdout, "\nready: runs with \"cloud: aws\" are kept in %s; \"%s doctor --cloud aws\" checks everything\n", out.Store, program)
	return err
}

// printSetup says what will be done where.
func (a *app) printSetup(w io.Writer, s *aws.Setup) error {
	fmt.Fprintf(w, "account %s, region %s, as %s\n", s.Account.ID, s.Account.Region, ui.Clean(s.Account.Principal))
	for _, i := range s.Items {
		line := fmt.Sprintf("  %-7s %s %s", i.State, i.Kind, i.Name)
		if i.Detail != "" {
			line += ": " + i.Detail
		}
		fmt.Fprintln(w, ui.Clean(line))
	}
	var err error
	if !s.Changes() {
		_, err = fmt.Fprintln(w, "nothing to do")
	}
	return err
}

// printPolicy prints a policy; without credentials that of an example account.
func (a *app) printPolicy(ctx context.Context, o *setupOptions) error {
	who, err := aws.WhoAmI(ctx, o.aws.Region)
	if err != nil && ctx.Err() == nil {
		fmt.Fprintf(a.messages, "the account is not known (%s): put its number in place of 111122223333\n", ui.Clean(err.Error()))
		who = aws.Account{ID: "111122223333", Partition: "aws"}
	}
	p, err := aws.PolicyFor(o.policy, who)
	if err != nil {
		return usagef("--policy: %v", err)
	}
	_, err = io.WriteString(a.stdout, p.JSON())
	return err
}
