// The linear layers of the experts, over routed rows.
#include <algorithm>
#include <vector>

#include "chunk.h"
#include "cpu/reference/reference.h"

namespace scmoe::reference {

std::vector<RoutedRow> routed_rows(const Attrs& a, const int32_t* all_counts) {
  const int64_t local = a.experts / a.expertParallelSize, first = a.rank % a.expertParallelSize * local;
  const int64_t group = a.rank / a.expertParallelSize * a.expertParallelSize;
  std::vector<RoutedRow> found;
  int64_t row = 0;
  for (int64_t e = 0; e < local; e++) {
    for (int64_t q = group; q < group + a.expertParallelSize; q++) {
      const int64_t kept = std::min<int64_t>(all_counts[q * a.experts + first + e], a.capacity);
      const ChunkRange range = chunk_range(kept, a.chunk, a.chunks);
      for (int64_t slot = 0; slot < kept; slot++, row++)
        if (slot >= range.first && slot < range.first + range.count) found.push_back({row, e});
    }
  }
  return found;
}

template <class Real>
void grouped_linear(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const op::GroupedLinear<Real> io(call);
  for (const auto [row, e] : routed_rows(a, io.allCounts)) {
    for (int64_t o = 0; o < a.out; o++) {
      double y = io.b ? io.b[e * a.out + o] : 0;
      for (int64_t i = 0; i < a.in; i++) y += 1.0 * io.x[row * a.in + i] * io.w[(e * a.out + o) * a.in + i];
      io.y[row * a.out + o] = y;
    }
  }
}

template <class Real>
void grouped_linear_dgrad(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const op::GroupedLinearDgrad<Real> io(call);
  for (const auto [row, e] : routed_rows(a, io.allCounts)) {
    for (int64_t i = 0; i < a.in; i++) {
      double dx = 0;
      for (int64_t o = 0; o < a.out; o++) dx += 1.0 * io.dy[row * a.out + o] * io.w[(e * a.out + o) * a.in + i];
      io.dx[row * a.in + i] = dx;
    }
  }
}

template <class Real>
void grouped_linear_wgrad(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const op::GroupedLinearWgrad<Real> io(call);
  const int64_t weights = a.experts / a.expertParallelSize * a.out;
  std::vector<double> dw(weights * a.in, 0.0), db(weights, 0.0);
  for (const auto [row, e] : routed_rows(a, io.allCounts)) {
    for (int64_t o = 0; o < a.out; o++) {
      const double dy = io.dy[row * a.out + o];
      db[e * a.out + o] += dy;
      for (int64_t i = 0; i < a.in; i++) dw[(e * a.out + o) * a.in + i] += dy * io.x[row * a.in + i];
    }
  }
  for (int64_t i = 0; i < weights * a.in; i++) io.dw[i] += dw[i];
  for (int64_t i = 0; io.db && i < weights; i++) io.db[i] += db[i];
}

#define SCMOE_INSTANTIATE(name)                      \
  template void name<float>(const OpCall&, Stream*); \
  template void name<double>(const OpCall&, Stream*);
SCMOE_INSTANTIATE(grouped_linear)
SCMOE_INSTANTIATE(grouped_linear_dgrad)
SCMOE_INSTANTIATE(grouped_linear_wgrad)

}  // namespace scmoe::reference
