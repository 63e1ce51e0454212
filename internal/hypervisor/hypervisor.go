// Package hypervisor turns the instances that a test launches on moto's server
// into machines: each one's real user data is started, as root, in namespaces of
// its own, with a private copy of this machine's files, a network card, a
// metadata service at 169.254.169.254, and just enough of systemd. Powering off
// terminates the instance; terminating it kills the machine. Only tests import
// it.
//
// A region is a process in namespaces of its own, and everything else lives in
// it: the servers for EC2, SQS and S3, a bridge, and the machines. The end of
// that process is the end of all of it.
//
//	the test ── veth ── bridge ── veth ── machine i-1: IMDS, systemd, user data
//	                      │
//	                      ├─ moto, versitygw
//	                      └─ veth ── machine i-2 ...
//
// The test, the servers and the machines reach the servers at the same address:
// the host name is part of a signature. The region's process and the first
// processes of machines are the test's own program, started again: see init.
package hypervisor

import "time"

// T is what is needed of a test.
type T interface {
	Helper()
	TempDir() string
	Setenv(key, value string)
	Cleanup(func())
	Failed() bool
	Skipf(format string, args ...any)
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Options says what a region is like.
type Options struct {
	// Capacity is how many machines each pool has, see motoserver.Options.
	Capacity int
	// Hurry makes the timers of systemd run out this many times sooner: user
	// data arms them for a minute at least. 0 is 1.
	Hurry int
	// Hide are folders of this machine, beside those for temporary files, of
	// which the machines see nothing: what is to be sent must not be there by
	// itself. The home folder and the source of this module are always hidden.
	Hide []string
	// Environ is what services of machines find in their environment, beside
	// PATH and LANG. Real ones find nothing.
	Environ []string
	// Files are written to machines before they boot, as programs: by their
	// absolute path. A program in /usr/local/sbin hides one of this machine.
	Files map[string]string
	// Buckets, if there are any, makes the servers be found by Amazon's names,
	// over TLS, without a variable that says where they are. These are the
	// buckets that have names then.
	Buckets []string
}

// Machine is a machine that was started for an instance.
type Machine struct {
	ID, Type, Zone string
	Spot           bool
	Begun          time.Time // it was launched
	Booted         time.Time // its user data was started; zero: not yet
	Ended          time.Time // zero: it lives
	How            string    // it ended: powered off, terminated, crashed
	Error          string    // why it could not start
}
