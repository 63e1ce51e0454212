// Package acttest runs action.yml as GitHub would: whole workflows, by act,
// without containers. It has nothing but tests.
package acttest
