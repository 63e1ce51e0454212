// Package software prepares what tasks need on a rented machine: Python
// environments, packages of the system, a set-up script, a container.
//
// An environment is named by a hash over everything that decides what is in it
// (ID). The first machine that needs one builds it and packs it into the store;
// the others, and later runs, unpack it at the same absolute path (Ensure):
//
//	software/<id>/<place>/pack.json     what the pack is: created by whoever is first with a whole one
//	software/<id>/<place>/pack-<nonce>  the pack: tar, zstd
//	software/<id>/<place>/builder-<n>   the nth machine that tries to build it; rewritten while it lives
//	software/<id>/<place>/failed-<n>    why that one failed
//
// <place> is a hash over the path, the code's folder and the system: an
// environment works only where it was built for.
package software
