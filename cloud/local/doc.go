// Package local is the cloud contract on this machine: a Store in a folder, a
// Queue in memory, and Machines that are goroutines of this process.
//
// Nothing here is a special path: the coordinator and the agents speak to it
// as they speak to S3, SQS and EC2.
package local
