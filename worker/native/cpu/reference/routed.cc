// The ops of the MoE branch.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "cpu/reference/reference.h"

namespace scmoe::reference {
namespace {

// f_e, constant
std::vector<double> load_share(const Attrs& a, const int32_t* all_counts) {
  std::vector<double> share(a.experts, 0.0);
  for (int64_t q = 0; q < a.worldSize; q++)
    for (int64_t e = 0; e < a.experts; e++)
      share[e] += 1.0 * all_counts[q * a.experts + e] / (a.worldSize * a.rows * a.topK);
  return share;
}

// row(n, i) before dispatch, or -1; expert, slot, counts are inputs i to i + 2.
int64_t routed_row(const OpCall& call, int i, int64_t choice) {
  const int32_t expert = in<int32_t>(call, i)[choice], slot = in<int32_t>(call, i + 1)[choice];
  int64_t row = slot;
  for (int32_t e = 0; e < expert; e++) row += std::min<int64_t>(in<int32_t>(call, i + 2)[e], call.attrs->capacity);
  return slot < 0 ? -1 : row;
}

}  // namespace

template <class Real>
void router(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  Real *probs = out<Real>(call, 0), *weight = out<Real>(call, 2);
  int32_t *expert = out<int32_t>(call, 1), *slot = out<int32_t>(call, 3), *counts = out<int32_t>(call, 4);
  for (int64_t n = 0; n < a.rows; n++) {
    std::vector<double> p(a.experts, 0.0);
    double total = 0, chosen = 0;
    for (int64_t e = 0; e < a.experts; e++)
      for (int64_t j = 0; j < a.dim; j++)
        p[e] += 1.0 * in<Real>(call, 0)[n * a.dim + j] * in<Real>(call, 1)[e * a.dim + j];
    const double top = *std::max_element(p.begin(), p.end());
    for (double& x : p) total += x = std::exp(x - top);
    for (double& x : p) x /= total;
    std::vector<int32_t> order(a.experts);
    std::iota(order.begin(), order.end(), 0);
    if (call.num_in > 2) std::erase(order, in<int32_t>(call, 2)[n]);
    std::stable_sort(order.begin(), order.end(), [&](int32_t l, int32_t r) { return p[l] > p[r]; });
    for (int64_t i = 0; i < a.topK; i++) chosen += p[order[i]];
    for (int64_t i = 0; i < a.topK; i++) {
      expert[n * a.topK + i] = order[i];
      weight[n * a.topK + i] = a.topK > 1 ? p[order[i]] / chosen : p[order[i]];
    }
    std::copy(p.begin(), p.end(), probs + n * a.experts);
    if (call.num_out > 5) out<Real>(call, 5)[n] = top + std::log(total);
  }
  std::fill_n(counts, a.experts, 0);
  for (int64_t i = 0; i < a.topK; i++) {
    for (int64_t n = 0; n < a.rows; n++) {
      const int32_t place = counts[expert[n * a.topK + i]]++;
      slot[n * a.topK + i] = place < a.capacity ? place : -1;
    }
  }
}

template <class Real>
void router_backward(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const Real* lse = call.num_in > 8 ? in<Real>(call, 8) : nullptr;
  const Real *dweight = in<Real>(call, 0), *probs = in<Real>(call, 1), *x = in<Real>(call, 6), *w = in<Real>(call, 7);
  const int32_t *expert = in<int32_t>(call, 2), *slot = in<int32_t>(call, 4);
  const std::vector<double> share = load_share(a, in<int32_t>(call, 5));
  for (int64_t n = 0; n < a.rows; n++) {
    const Real* p = probs + n * a.experts;
    std::vector<double> dp(a.experts);
    for (int64_t e = 0; e < a.experts; e++)
      dp[e] = 1.0 * a.auxCoefficient * a.experts * share[e] / (a.worldSize * a.rows);
    double chosen = 0, inner = 0;
    for (int64_t c = n * a.topK; c < (n + 1) * a.topK; c++) chosen += p[expert[c]];
    // weight_i = p_i / chosen, so d weight_i / d p_j = ((i == j) - weight_i) / chosen; for k = 1 weight = p.
    for (int64_t j = n * a.topK; j < (n + 1) * a.topK; j++) {
      for (int64_t i = n * a.topK; i < (n + 1) * a.topK; i++) {
        const double slope = a.topK > 1 ? ((i == j) - p[expert[i]] / chosen) / chosen : 1;
        if (slot[i] >= 0) dp[expert[j]] += dweight[i] * slope;
      }
    }
    for (int64_t e = 0; e < a.experts; e++) inner += p[e] * dp[e];
    for (int64_t j = 0; j < a.dim; j++) {
      Real& dx = out<Real>(call, 0)[n * a.dim + j];
      double sum = a.accumulate ? dx : 0;
      for (int64_t e = 0; e < a.experts; e++) {
        double dlogit = p[e] * (dp[e] - inner);
        if (lse) dlogit += 2.0 * a.zCoefficient * lse[n] / (a.worldSize * a.rows) * p[e];
        sum += dlogit * w[e * a.dim + j];
        out<Real>(call, 1)[e * a.dim + j] += dlogit * x[n * a.dim + j];
      }
      dx = sum;
    }
  }
}

template <class Real>
void aux_loss(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const std::vector<double> share = load_share(a, in<int32_t>(call, 1));
  double loss = 0;
  for (int64_t n = 0; n < a.rows; n++)
    for (int64_t e = 0; e < a.experts; e++)
      loss += a.experts * share[e] * in<Real>(call, 0)[n * a.experts + e] / (a.worldSize * a.rows);
  out<Real>(call, 0)[0] = (a.accumulate ? out<Real>(call, 0)[0] : 0) + a.scale * loss;
}

template <class Real>
void z_loss(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  double loss = a.accumulate ? out<Real>(call, 0)[0] : 0;
  for (int64_t n = 0; n < a.rows; n++) loss += 1.0 * a.scale * in<Real>(call, 0)[n] * in<Real>(call, 0)[n];
  out<Real>(call, 0)[0] = loss;
}

template <class Real>
void permute(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  for (int64_t c = 0; c < a.rows * a.topK; c++) {
    const int64_t row = routed_row(call, 1, c);
    if (row >= 0) std::copy_n(in<Real>(call, 0) + c / a.topK * a.dim, a.dim, out<Real>(call, 0) + row * a.dim);
  }
}

template <class Real>
void permute_backward(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  for (int64_t n = 0; n < a.rows; n++) {
    for (int64_t j = 0; j < a.dim; j++) {
      Real& dx = out<Real>(call, 0)[n * a.dim + j];
      double sum = a.accumulate ? dx : 0;
      for (int64_t c = n * a.topK; c < (n + 1) * a.topK; c++) {
        const int64_t row = routed_row(call, 1, c);
        if (row >= 0) sum += in<Real>(call, 0)[row * a.dim + j];
      }
      dx = sum;
    }
  }
}

template <class Real>
void unpermute(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  for (int64_t n = 0; n < a.rows; n++) {
    for (int64_t j = 0; j < a.dim; j++) {
      double sum = 0;
      for (int64_t c = n * a.topK; c < (n + 1) * a.topK; c++) {
        const int64_t row = routed_row(call, 1, c);
        if (row >= 0) sum += 1.0 * in<Real>(call, 4)[c] * in<Real>(call, 0)[row * a.dim + j];
      }
      out<Real>(call, 0)[n * a.dim + j] = sum;
    }
  }
}

template <class Real>
void unpermute_backward(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  for (int64_t c = 0; c < a.rows * a.topK; c++) {
    const Real* dy = in<Real>(call, 0) + c / a.topK * a.dim;
    const int64_t row = routed_row(call, 2, c);
    double dweight = 0;
    for (int64_t j = 0; row >= 0 && j < a.dim; j++) {
      dweight += 1.0 * dy[j] * in<Real>(call, 1)[row * a.dim + j];
      out<Real>(call, 0)[row * a.dim + j] = in<Real>(call, 5)[c] * dy[j];
    }
    out<Real>(call, 1)[c] = dweight;
  }
}

#define SCMOE_INSTANTIATE(name)                      \
  template void name<float>(const OpCall&, Stream*); \
  template void name<double>(const OpCall&, Stream*);
SCMOE_INSTANTIATE(router)
SCMOE_INSTANTIATE(router_backward)
SCMOE_INSTANTIATE(aux_loss)
SCMOE_INSTANTIATE(z_loss)
SCMOE_INSTANTIATE(permute)
SCMOE_INSTANTIATE(permute_backward)
SCMOE_INSTANTIATE(unpermute)
SCMOE_INSTANTIATE(unpermute_backward)

}  // namespace scmoe::reference
