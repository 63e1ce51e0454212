package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by release builds (-ldflags "-X main.version=1.2.3").
var version = ""

// buildVersion is the version of this program: of the release, of the module
// (go install), or "dev".
func buildVersion() string {
	if version != "" {
		return version
	}
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" && b.Main.Version != "(devel)" {
		return b.Main.Version
	}
	return "dev"
}

// versionInfo is the JSON of version.
type versionInfo struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"`
	Modified bool   `json:"modified"` // built from files that were not committed
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func newVersionCmd(a *app) *cobra.Command {
	json := false
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  arguments(0, 0, ""), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			v := versionInfo{Version: buildVersion(), Commit: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
			if b, ok := debug.ReadBuildInfo(); ok {
				for _, s := range b.Settings {
					switch s.Key {
					case "vcs.revision":
						v.Commit = s.Value
					case "vcs.modified":
						v.Modified = s.Value == "true"
					}
				}
			}
			if json {
				return a.printJSON(v)
			}
			modified := ""
			if v.Modified {
				modified = " (modified)"
			}
			_, err := fmt.Fprintf(a.stdout, "%s %s\ncommit %s%s\n%s %s\n", program, v.Version, v.Commit, modified, v.Go, v.Platform)
			return err
		},
	}
	cmd.Flags().BoolVar(&json, "json", false, "print JSON")
	return cmd
}
