// Package fleet measures large fleets in virtual time. It has nothing but a
// test, which does nothing unless it is asked to:
//
//	go test ./bench/fleet -run . -v -timeout 2h -full
package fleet
