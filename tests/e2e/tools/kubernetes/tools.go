//go:build tools

// Package tools pins the Kubernetes programs that the end-to-end tests and `make bench-peer` run.
package tools

import (
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-proxy"
	_ "k8s.io/kubernetes/cmd/kubectl"
)
