# Distribute. `make` alone lists what there is; everything is a script in scripts/.

.DEFAULT_GOAL := help
.PHONY: help docs run run-metadata stop reset doctor build test test-integration lint fmt bench clean clean-all test-chaos soak

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 26

run: build ## check, build, start a local cluster, put a file in and get it back
	@scripts/run.sh

run-metadata: build ## one metadata server in the foreground on https://localhost:8080 (PORT=..)
	@scripts/run-metadata.sh

stop: ## stop the cluster, keep its data
	@scripts/stop.sh

reset: ## delete the cluster's data, after asking (YES=1 answers)
	@scripts/reset.sh

doctor: ## check what a build needs, install it if allowed
	@scripts/doctor.sh

build: doctor ## metadata-server, chunk-server and dfsctl into ./bin/
	@scripts/build.sh

test: doctor ## unit, property and in-process tests; no root, no fixed port
	@scripts/test.sh unit

test-integration: build ## scenarios on clusters of real processes
	@scripts/test.sh integration

test-chaos: build ## every scenario with drawn seeds, the mixture of faults for five minutes
	@scripts/test.sh chaos

soak: build ## the mixture of faults alone, for an hour (CHAOS_SECONDS=N for longer)
	@scripts/test.sh soak

lint: doctor ## formatting, clippy, shell scripts
	@scripts/lint.sh

fmt: ## format the code
	@cargo fmt --all

docs: build ## write the documents that are made from the code
	@scripts/docs.sh

bench: build ## figures of this machine
	@scripts/bench.sh

.PHONY: docker-up docker-down docker-test k8s-check k8s-test
docker-up: ## images and a cluster of containers, a file in and out; needs Docker alone
	@scripts/docker.sh up

docker-down: ## stop the containers, keep their data (VOLUMES=1 deletes it)
	@scripts/docker.sh down

docker-test: build ## the same under a name of its own, with the programs of ./bin (SOURCE=1 compiles in the image)
	@scripts/docker-test.sh

k8s-check: build ## manifests: rendered as committed, valid for three versions, our own rules
	@scripts/k8s.sh check

k8s-test: build ## the pods of the small overlay under podman, a file in and out (root)
	@scripts/k8s.sh test

clean: ## delete this clone's build products, never data
	@scripts/clean.sh

clean-all: ## and the build cache of all clones
	@scripts/clean.sh --all
