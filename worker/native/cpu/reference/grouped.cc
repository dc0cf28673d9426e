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
  for (const auto [row, e] : routed_rows(a, in<int32_t>(call, 2))) {
    for (int64_t o = 0; o < a.out; o++) {
      double y = call.num_in > 3 ? in<Real>(call, 3)[e * a.out + o] : 0;
      for (int64_t i = 0; i < a.in; i++)
        y += 1.0 * in<Real>(call, 0)[row * a.in + i] * in<Real>(call, 1)[(e * a.out + o) * a.in + i];
      out<Real>(call, 0)[row * a.out + o] = y;
    }
  }
}

template <class Real>
void grouped_linear_dgrad(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  for (const auto [row, e] : routed_rows(a, in<int32_t>(call, 2))) {
    for (int64_t i = 0; i < a.in; i++) {
      double dx = 0;
      for (int64_t o = 0; o < a.out; o++)
        dx += 1.0 * in<Real>(call, 0)[row * a.out + o] * in<Real>(call, 1)[(e * a.out + o) * a.in + i];
      out<Real>(call, 0)[row * a.in + i] = dx;
    }
  }
}

template <class Real>
void grouped_linear_wgrad(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const int64_t weights = a.experts / a.expertParallelSize * a.out;
  std::vector<double> dw(weights * a.in, 0.0), db(weights, 0.0);
  for (const auto [row, e] : routed_rows(a, in<int32_t>(call, 2))) {
    for (int64_t o = 0; o < a.out; o++) {
      const double dy = in<Real>(call, 0)[row * a.out + o];
      db[e * a.out + o] += dy;
      for (int64_t i = 0; i < a.in; i++) dw[(e * a.out + o) * a.in + i] += dy * in<Real>(call, 1)[row * a.in + i];
    }
  }
  for (int64_t i = 0; i < weights * a.in; i++) out<Real>(call, 0)[i] += dw[i];
  for (int64_t i = 0; call.num_out > 1 && i < weights; i++) out<Real>(call, 1)[i] += db[i];
}

#define SCMOE_INSTANTIATE(name)                      \
  template void name<float>(const OpCall&, Stream*); \
  template void name<double>(const OpCall&, Stream*);
SCMOE_INSTANTIATE(grouped_linear)
SCMOE_INSTANTIATE(grouped_linear_dgrad)
SCMOE_INSTANTIATE(grouped_linear_wgrad)

}  // namespace scmoe::reference
