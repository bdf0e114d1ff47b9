# Eight targets at most. `go test ./...` is the truth; the rest is short for
# things that people type.
export CGO_ENABLED := 0
BUILD := go build -trimpath -ldflags='-s -w'
B ?=
N ?= 2000
SEED ?= 1

.PHONY: build kubernetes demo test e2e differential lint bench

build: ## the programs, in bin/
	@mkdir -p bin
	$(BUILD) -o bin/ ./cmd/...

kubernetes: ## what `fairway-lab up --kubernetes` runs, in bin/kubernetes; minutes the first time
	cd test/kubernetes && go run ./build ../../bin/kubernetes

demo: build ## two nodes, 28 pods, every flow between them; KEEP=1 leaves the lab up
	@bin/fairway-lab demo --svg bin/demo.svg $(if $(KEEP),--keep)

test: build ## everything but e2e, on the real kernel; needs root
	@bin/fairway-lab check
	go test -timeout 20m ./...
	cd test/kubernetes && go test ./...
	cd test/vpccni && go test ./...
	cd test/chart && go test -short ./...

e2e: build kubernetes ## a real Kubernetes in the lab, and the chart's alerts; needs root
	cd test/chart && go test -count=1 ./...
	cd test/kubernetes && go test -count=1 -timeout 30m -parallel 3 -tags e2e ./e2e

differential: ## N random packets, for real and explained: N=10000 SEED=7; needs root
	@go test ./lab/differential -count=1 -timeout 60m -run TestDifferential -probes $(N) -seed $(SEED) -v | grep -v '^=== '

lint: ## vet, staticcheck, formatting, and the other architecture
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "gofmt: $$unformatted"; exit 1; }
	go vet ./...
	go tool staticcheck ./...
	cd test/kubernetes && go vet -tags e2e ./...
	cd test/vpccni && go vet ./...
	cd test/chart && go vet ./...
	GOARCH=arm64 go build ./...

bench: build ## without B: list the benches; B=add runs one
	@go run ./bench $(B)
