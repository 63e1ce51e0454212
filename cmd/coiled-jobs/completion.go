package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/executor"
)

func newCompletionCmd(a *app) *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "Print the completion script for bash, zsh, fish or powershell",
		Long: `Print the script that completes commands, flags, runs and functions.

  bash        source <(coiled-jobs completion bash)       in ~/.bashrc
  zsh         source <(coiled-jobs completion zsh)        in ~/.zshrc
  fish        coiled-jobs completion fish | source        in ~/.config/fish/config.fish
  powershell  coiled-jobs completion powershell | Out-String | Invoke-Expression`,
		Args: arguments(1, 1, "a shell ("+strings.Join(shells, ", ")+")"), ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.stdout, true)
			case "zsh":
				return root.GenZshCompletion(a.stdout)
			case "fish":
				return root.GenFishCompletion(a.stdout, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.stdout)
			}
			return usagef("completion %s: write one of %s", args[0], strings.Join(shells, ", "))
		},
	}
}

func completePipelines(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
}

// completeTimeout bounds how long a key press waits for the store.
const completeTimeout = 2 * time.Second

func (a *app) completeRuns(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	none := cobra.ShellCompDirectiveNoFileComp
	if len(args) > 0 && !strings.HasSuffix(cmd.Use, "...") {
		return nil, none
	}
	ctx, cancel := context.WithTimeout(context.Background(), completeTimeout)
	defer cancel()
	e, err := a.reader(ctx)
	if err != nil {
		return nil, none
	}
	runs, err := e.Runs(ctx, false)
	if err != nil {
		return nil, none
	}
	names := []string{"latest\tthe last run"}
	for _, r := range runs {
		if strings.HasPrefix(r.Run, prefix) {
			names = append(names, fmt.Sprintf("%s\t%s %s", r.Run, r.Pipeline, r.Status))
		}
	}
	return names, none | cobra.ShellCompDirectiveKeepOrder
}

// completeTasks completes RUN, then the names of its functions.
func (a *app) completeTasks(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	none := cobra.ShellCompDirectiveNoFileComp
	if len(args) == 0 {
		return a.completeRuns(cmd, args, prefix)
	}
	if len(args) > 1 {
		return nil, none
	}
	ctx, cancel := context.WithTimeout(context.Background(), completeTimeout)
	defer cancel()
	e, err := a.reader(ctx)
	if err != nil {
		return nil, none
	}
	run, store, err := e.Find(ctx, args[0])
	if err != nil {
		return nil, none
	}
	v, err := executor.OpenView(ctx, store, run)
	if err != nil {
		return nil, none
	}
	return v.Functions(), none | cobra.ShellCompDirectiveNoSpace
}
