# Everything here sets up what it needs, as root, on a Debian machine with Rust.

.DEFAULT_GOAL := help
.PHONY: help set-up demo test test-kernels test-image test-arm64 test-page test-monitoring image conformance chaos fuzz lint deny e2e bench bench-peer bench-packets rulesets

help: ## Say what there is
	@sed -n 's/^\([a-z0-9-]*\):.*## /make \1	/p' Makefile | expand -t 18

set-up: ## Install missing Debian packages
	@hack/set-up

demo: set-up ## Show Services at work, in network namespaces, in under a minute
	@cargo build --quiet --bin kube-proxy --example demo
	@demo/run

test: set-up ## Run every test that this machine can run
	@hack/test

RELEASES = bullseye bookworm trixie trixie-backports sid
PACKETS =
test-kernels: set-up ## Boot the kernels of RELEASES of Debian and test there: modules, packets, bridges, IPVS, a small bench
	@hack/set-up vm
	@for release in $(RELEASES); do vm-tests/all $$release $(PACKETS) || exit; done

ARCH =
image: set-up ## Build the container image, without an engine, to target/image; ARCH=arm64 for another processor
	@hack/set-up image
	@ARCH=$(ARCH) deploy/build-image

test-arm64: set-up ## Build for arm64, and serve on an emulated machine with an arm64 kernel
	@hack/set-up image
	@hack/set-up arm64
	@PROFILE=dev ARCH=arm64 deploy/build-image >/dev/null && vm-tests/arm64 target/image/kube-proxy

test-image: set-up ## Build an image quickly and try it with what the DaemonSet grants
	@hack/set-up image
	@image=$$(PROFILE=dev deploy/build-image) && KUBE_PROXY_IMAGE=$$image cargo test --test image

test-page: set-up ## Try the status page in Chromium, and leave a picture in target/status-page.png
	@hack/set-up browser
	cargo test --test status_page

test-monitoring: set-up ## Have promtool test the alerts
	promtool=$$(hack/promtool) && KUBE_PROXY_PROMTOOL=$$promtool cargo test --test monitoring

MINUTES = 60
chaos: set-up ## Restart, kill, upgrade and tamper for MINUTES while clients connect; nobody may notice
	CHAOS_SECONDS=$$(($(MINUTES) * 60)) cargo test --test chaos

fuzz: set-up ## Fuzz each target of fuzz/ for MINUTES; what earlier runs found is in fuzz/found
	@hack/fuzz $$(($(MINUTES) * 60))

lint: set-up ## Check format, lints, documentation
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps

deny: ## Check licences, sources, duplicates and known vulnerabilities of dependencies
	@hack/set-up deny
	@hack/deny

e2e: set-up ## Test against a real etcd and kube-apiserver (needs Go, builds them once)
	tools=$$(tests/e2e/build-tools) && KUBE_PROXY_E2E_TOOLS=$$tools cargo test --test e2e

FOCUS =
conformance: set-up ## Run upstream's [sig-network] tests on a cluster in namespaces (needs Go; an hour); FOCUS='REGEX' chooses
	cargo build --release --bin kube-proxy
	tests/conformance/all target/release/kube-proxy $(if $(QUICK),--quick) $(if $(FOCUS),'$(FOCUS)')

bench: set-up ## Measure load, update, memory and waits of others at 1,000 to 50,000 Services
	cargo bench --bench programming

bench-peer: set-up ## Measure beside upstream's kube-proxy (needs Go)
	tools=$$(tests/e2e/build-tools) && KUBE_PROXY_E2E_TOOLS=$$tools cargo bench --bench peer

bench-packets: set-up ## Measure what a packet costs, beside upstream's kube-proxy and a hand-written rule (needs Go)
	tools=$$(tests/e2e/build-tools) && KUBE_PROXY_E2E_TOOLS=$$tools cargo bench --bench packets -- $(ARGUMENTS)

rulesets: ## Write the listings in rulesets/ anew
	UPDATE_RULESETS=1 cargo test --test listings documented
	cargo test --test listings
