// Package cloudtest proves implementations of the cloud contract and stands in
// for them in tests.
//
// TestStore, TestQueue and TestMachines are one conformance suite per
// interface. NewStore is a store in memory that passes the suite and never
// waits for anything real, so that it works inside testing/synctest. Faulty
// wraps any store with a script of failures. Region is a cloud that rents out
// machines: capacity, limits, throttling, delays, notices; Fleet is
// cloud.Machines on it. Queue is a queue that delivers late, twice and again.
//
// Only tests import this package.
package cloudtest
