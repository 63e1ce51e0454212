module github.com/coiled-jobs/coiled-jobs

go 1.26.8
