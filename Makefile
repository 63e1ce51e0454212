# Everything here is one line, so that it can be typed without make too.

.PHONY: build install test race lint fmt fuzz bench release tidy clean

build: ## the binary, bin/coiled-jobs
	CGO_ENABLED=0 go build -trimpath -o bin/coiled-jobs ./cmd/coiled-jobs

install: ## the binary, in Go's bin folder
	CGO_ENABLED=0 go install -trimpath ./cmd/coiled-jobs

test: ## all tests
	./scripts/test

race: ## the packages with goroutines, under the race detector
	./scripts/race

lint: ## gofmt, go vet, staticcheck, tidy go.mod
	./scripts/lint

fmt: ## gofmt
	gofmt -w $$(git ls-files '*.go')

fuzz: ## each fuzz target for FUZZTIME (default 5s)
	./scripts/fuzz

bench: ## coiled-jobs against xargs, GNU parallel and Dask; see bench/
	go run ./bench

release: ## the files of a release, in dist/
	./scripts/release

tidy:
	go mod tidy

clean:
	rm -rf bin dist .cache coiled-jobs
