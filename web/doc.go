// Package web is the page that serve shows: runs, their graph, tasks, machines,
// logs and results, schedules, and actions on them. It reads runs as every
// other reader does, from their journals, and keeps no state of its own.
package web
