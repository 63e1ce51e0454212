package main

import "github.com/spf13/cobra"

// laterCmds are commands of the contract that need what this version does not
// have: they say so instead of being unknown.
func laterCmds() []*cobra.Command {
	later := []struct{ use, needs string }{
		{"setup", "setting up an account comes with the EC2 backend, which is not part of this version; runs on this machine need no set-up"},
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
