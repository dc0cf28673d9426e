//go:build tools

// Package helm3 pins the last Helm 3.
package helm3

import _ "helm.sh/helm/v3/cmd/helm"
