package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// clouds are the places where a run can be, as --cloud names them.
var clouds = []string{"local", "aws"}

// cloudOptions are the flags of commands that look at this machine, and at an
// account where there is one.
type cloudOptions struct {
	cloud  string
	region string
}

func (o *cloudOptions) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.cloud, "cloud", "", "local or aws: look only here, or there too (default: there if there are credentials)")
	cmd.Flags().StringVar(&o.region, "region", "", "the region of aws (default: the configured one)")
	_ = cmd.RegisterFlagCompletionFunc("cloud", cobra.FixedCompletions(clouds, cobra.ShellCompDirectiveNoFileComp))
}

// accountUse says whether a command looks at an account.
type accountUse int

const (
	accountNone  accountUse = iota
	accountMaybe            // if it can be; what is wrong there is a warning
	accountYes              // what is wrong there is an error
)

// account says whether the caller has to do with AWS: by saying so, by
// credentials in the environment, or by a store or a configuration that hints
// at it.
func (a *app) account(o *cloudOptions) (accountUse, error) {
	switch o.cloud {
	case "aws":
		return accountYes, nil
	case "local":
		if o.region != "" {
			return accountNone, usagef("--region belongs to aws")
		}
		return accountNone, nil
	case "":
	default:
		return accountNone, usagef("--cloud %s: write local or aws", o.cloud)
	}
	if o.region != "" {
		return accountYes, nil
	}
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
		if a.getenv(name) == "" {
			continue
		}
		if a.getenv("AWS_ENDPOINT_URL") != "" {
			return accountMaybe, nil // a server for S3 alone is no account
		}
		return accountYes, nil
	}
	if strings.HasPrefix(a.storeFlag, "s3://") || strings.HasPrefix(a.getenv("COILED_JOBS_STORE"), "s3://") {
		return accountMaybe, nil
	}
	for _, file := range []string{a.getenv("AWS_SHARED_CREDENTIALS_FILE"), a.getenv("AWS_CONFIG_FILE"),
		filepath.Join(a.getenv("HOME"), ".aws", "credentials"), filepath.Join(a.getenv("HOME"), ".aws", "config")} {
		if info, err := os.Stat(file); file != "" && filepath.IsAbs(file) && err == nil && info.Mode().IsRegular() && info.Size() > 0 {
			return accountMaybe, nil
		}
	}
	return accountNone, nil
}
