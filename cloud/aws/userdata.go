package aws

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/coiled-jobs/coiled-jobs/cloud"
)

// UserData is what a machine does by itself: it arms the timer that ends it
// whatever happens, fetches the agent, checks it and runs it. When the agent
// ends, or anything fails, the machine powers off, which terminates it; after
// a failure its log is uploaded before.
//
// Whoever may look at the machine can read its user data: no secrets go in. A
// presigned URL is no secret but lets its holder fetch that object until it
// expires; with Region none is needed.
type UserData struct {
	MaxLife time.Duration
	// Agent is where the program is, compressed with gzip: an http(s) URL.
	Agent  string
	SHA256 string // of the compressed program, in hexadecimal
	// Log is where the log of a failed boot is put: an http(s) URL.
	Log string
	// Region, if set, says that the URLs are not presigned and are in a bucket
	// of that region: the machine signs with the credentials of its role.
	Region string
	Args   []string // of the agent
}

// maxUserData is EC2's limit.
const maxUserData = 16 << 10

// The first part runs under cloud-init: without HOME, in /, and a failure of it
// would leave the machine running. It hands over to units of systemd, so that
// the boot can end. The second part is the same script in its own unit:
//   - what a task does to memory must not end the agent (OOMPolicy);
//   - PUT needs a length, so a file is uploaded, and not more of it than helps;
//   - the log is kept free of URLs: it is for people to read.
const userDataHead = `#!/bin/bash
if [ $# = 0 ]; then
if ! systemd-run -q --unit=coiled-jobs-deadline --on-active=%d systemctl poweroff ||
! systemd-run -q --unit=coiled-jobs -p OOMPolicy=continue -p TasksMax=infinity -p LimitNOFILE=524288 -p Delegate=yes /bin/bash "$0" run
then systemctl poweroff; fi
exit
fi
set -Eeuo pipefail
export HOME=/root
umask 022
d=/opt/coiled-jobs l=/var/log/coiled-jobs.log
agent=%s
sum=%s
log=%s
exec >>$l 2>&1
r() { curl -fsS --connect-timeout 5 --max-time 300 --retry 5 --retry-all-errors "$@"; }
`

const userDataPlain = `s() { r "$@"; }
`

// curl reads the credentials from a pipe: arguments can be seen by everybody.
// Older ones do not send the payload's hash by themselves; what is fetched is
// checked below.
const userDataSigned = `m=${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}/latest
i() { r -H "X-aws-ec2-metadata-token: $t" "$m/meta-data/iam/security-credentials/$1"; }
f() { sed -n 's/.*"'"$1"'" *: *"\([^"]*\)".*/\1/p' <<<"$c"; }
s() {
t=$(r -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 300' "$m/api/token")
c=$(i '')
c=$(i "$c")
r -K <(printf 'user = "%%s:%%s"\nheader = "x-amz-security-token: %%s"\n' "$(f AccessKeyId)" "$(f SecretAccessKey)" "$(f Token)") --aws-sigv4 aws:amz:%s:s3 -H x-amz-content-sha256:UNSIGNED-PAYLOAD "$@"
}
`

const userDataTail = `end() {
e=$?
trap - EXIT
set +e
echo "$(date -u +%%FT%%TZ) ended with status $e"
if [ $e != 0 ]; then
tail -c 262144 $l >$l.end
s -o /dev/null -T $l.end "$log"
fi
systemctl poweroff
}
trap end EXIT
echo "$(date -u +%%FT%%TZ) boot, $(uname -srm)"
mkdir -p $d
cd $d
s -o agent.gz "$agent"
echo "$sum  agent.gz" | sha256sum -c --quiet
gunzip -cf agent.gz >agent
chmod 755 agent
rm agent.gz
./agent%s
`

var (
	regionName = regexp.MustCompile(`^[a-z]{2}[a-z0-9-]{1,30}$`)
	plainWord  = regexp.MustCompile(`^[A-Za-z0-9_./:=@%+-]+$`)
)

// Script is the user data: a script for bash.
func (u UserData) Script() ([]byte, error) {
	invalid := func(why string) error {
		return &cloud.Error{Op: "write", Resource: "user data", Kind: cloud.KindInvalid, Err: errors.New(why)}
	}
	if u.MaxLife < time.Minute {
		return nil, invalid(fmt.Sprintf("a machine that lives %v", u.MaxLife))
	}
	if sum, err := hex.DecodeString(u.SHA256); err != nil || len(sum) != 32 {
		return nil, invalid(fmt.Sprintf("%q is no SHA-256", u.SHA256))
	}
	for _, s := range []string{u.Agent, u.Log} {
		x, err := url.Parse(s)
		if err != nil || x.Scheme != "http" && x.Scheme != "https" || x.Host == "" {
			return nil, invalid(fmt.Sprintf("%.100q is no http URL", s))
		}
	}
	if u.Region != "" && !regionName.MatchString(u.Region) {
		return nil, invalid(fmt.Sprintf("%q is no region", u.Region))
	}
	var args strings.Builder
	for _, a := range u.Args {
		if strings.IndexByte(a, 0) >= 0 {
			return nil, invalid(fmt.Sprintf("the argument %.100q has a NUL byte", a))
		}
		args.WriteString(" " + quote(a))
	}
	script := fmt.Sprintf(userDataHead, int64(u.MaxLife/time.Second), quote(u.Agent), strings.ToLower(u.SHA256), quote(u.Log))
	if u.Region == "" {
		script += userDataPlain
	} else {
		script += fmt.Sprintf(userDataSigned, u.Region)
	}
	script += fmt.Sprintf(userDataTail, args.String())
	if len(script) > maxUserData {
		return nil, invalid(fmt.Sprintf("%d bytes; EC2 takes %d", len(script), maxUserData))
	}
	return []byte(script), nil
}

// quote makes one word of the shell.
func quote(s string) string {
	if plainWord.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
