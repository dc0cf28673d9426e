//go:build tools

// Package jobset pins the controller that the operator is compared with.
package jobset

import _ "sigs.k8s.io/jobset"
