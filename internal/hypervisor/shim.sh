#!/bin/bash
# systemctl, systemd-run, poweroff and shutdown of a machine of the tests: the
# machine's first process does what they ask for. It answers with the exit
# status, the number of the stream for its text, and the text.
exec 3<>/dev/tcp/127.0.0.1/1 || exit 1
printf '%s\0' "$#" "${0##*/}" "$@" >&3
read -r status stream <&3 || exit 1
cat <&3 >&"$stream"
exit "$status"
