// Package e2e tests the whole program on machines: the command line as it is
// shipped, the servers that others wrote, and the machines of
// internal/hypervisor. It has nothing but tests.
package e2e
