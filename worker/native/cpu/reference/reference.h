// The plain loops that define every op, in the notation of worker/program/ops.ts. Sums are in
// double. Real is the type of floating-point buffers: float to compare kernels with the loops,
// double to take central differences.
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

// The rows of the chunk that the attributes name, in order.
std::vector<RoutedRow> routed_rows(const Attrs& attrs, const int32_t* all_counts);

}  // namespace scmoe::reference

namespace scmoe {

// The same ops as reference_backend(), with floating-point buffers of double.
const Backend* reference_backend_f64();

}  // namespace scmoe
