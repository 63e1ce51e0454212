package main

import (
	"bytes"

	"github.com/spf13/cobra"

	"github.com/coiled-jobs/coiled-jobs/spec"
)

func newSchemaCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of pipeline files, for editors",
		Long: `Print the JSON Schema of pipeline files. An editor with a YAML language server completes and checks
pipelines that begin with

  # yaml-language-server: $schema=./pipeline.schema.json`,
		Args: arguments(0, 0, ""), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			_, err := a.stdout.Write(append(bytes.TrimRight(spec.Schema(), "\n"), '\n'))
			return err
		},
	}
}
