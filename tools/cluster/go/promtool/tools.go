//go:build tools

// Package promtool pins Prometheus' checker of rules.
package promtool

import _ "github.com/prometheus/prometheus/cmd/promtool"
