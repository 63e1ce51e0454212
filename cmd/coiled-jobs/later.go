package main

import "github.com/spf13/cobra"

// laterCmds are commands of the contract that need what this version does not
// have: they say so instead of being unknown.
func laterCmds() []*cobra.Command {
	later := []struct{ use, needs string }{
		{"serve", "the web page is not part of this version; \"" + program + " report RUN\" writes a page about a run"},
	}
	cmds := make([]*cobra.Command, 0, len(later))
	for _, l := range later {
		cmds = append(cmds, &cobra.Command{
			Use: l.use, Hidden: true, DisableFlagParsing: true, Short: "Not part of this version",
			RunE: func(cmd *cobra.Command, args []string) error { return notHere("%s: %s", cmd.Name(), l.needs) },
		})
	}
	return cmds
}
