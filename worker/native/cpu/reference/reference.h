// The plain loops that define every op, in the notation of worker/program/ops.ts. Sums are in double. Real is what the
// floating-point buffers hold: float to compare kernels with, double to take central differences of.
#pragma once

#include <cstdint>
#include <vector>

#include "backend.h"
#include "ops.generated.h"

namespace scmoe::reference {

#define SCMOE_DECLARE(name) \
  template <class Real>     \
  void name(const OpCall& call, Stream*);
SCMOE_COMPUTE_OPS(SCMOE_DECLARE)
#undef SCMOE_DECLARE

// A routed row of this rank after dispatch, and its local expert.
struct RoutedRow {
  int64_t row, expert;
};

// Those of the chunk that the attributes name, in order.
std::vector<RoutedRow> routed_rows(const Attrs& attrs, const int32_t* all_counts);

}  // namespace scmoe::reference

namespace scmoe {

// reference_backend(), its floating-point buffers double.
const Backend* reference_backend_f64();

}  // namespace scmoe
