// Package sim is a run on rented machines without machines: the coordinator,
// the fleet and the machines are the real ones, the cloud is cloudtest's, and
// tasks only sleep. Inside testing/synctest hours pass in seconds. It is for
// tests and benchmarks.
package sim
