// The ops of the MoE branch.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "cpu/reference/reference.h"

namespace scmoe::reference {
namespace {

// f_e of the balance loss
std::vector<double> load_share(const Attrs& a, const int32_t* all_counts) {
  std::vector<double> share(a.experts, 0.0);
  for (int64_t q = 0; q < a.worldSize; q++)
    for (int64_t e = 0; e < a.experts; e++)
      share[e] += 1.0 * all_counts[q * a.experts + e] / (a.worldSize * a.rows * a.topK);
  return share;
}

// row(n, i) before dispatch, or -1. `io` has the buffers expert, slot and counts.
template <class Buffers>
int64_t routed_row(const Attrs& a, const Buffers& io, int64_t choice) {
  if (io.slot[choice] < 0) return -1;
  int64_t row = io.slot[choice];
  for (int32_t e = 0; e < io.expert[choice]; e++) row += std::min<int64_t>(io.counts[e], a.capacity);
  return row;
}

}  // namespace

template <class Real>
void router(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const op::Router<Real> io(call);
  for (int64_t n = 0; n < a.rows; n++) {
    std::vector<double> logits(a.experts, 0.0), p(a.experts, 0.0);
    double total = 0, chosen = 0;
    for (int64_t e = 0; e < a.experts; e++)
      for (int64_t j = 0; j < a.dim; j++) logits[e] += 1.0 * io.x[n * a.dim + j] * io.w[e * a.dim + j];
    const double top = *std::max_element(logits.begin(), logits.end());
    for (int64_t e = 0; e < a.experts; e++) total += p[e] = std::exp(logits[e] - top);
    for (double& x : p) x /= total;
    std::vector<int32_t> order(a.experts);
    std::iota(order.begin(), order.end(), 0);
    if (io.taken) std::erase(order, io.taken[n]);
    std::stable_sort(order.begin(), order.end(), [&](int32_t l, int32_t r) { return logits[l] > logits[r]; });
    // Probabilities far below the largest are zero, so those of the chosen are formed anew.
    const auto share = [&](int64_t i) { return std::exp(logits[order[i]] - logits[order[0]]); };
    for (int64_t i = 0; i < a.topK; i++) chosen += share(i);
    for (int64_t i = 0; i < a.topK; i++) {
      io.expert[n * a.topK + i] = order[i];
      io.weight[n * a.topK + i] = a.topK > 1 ? share(i) / chosen : p[order[i]];
    }
    std::copy(p.begin(), p.end(), io.probs + n * a.experts);
    if (io.lse) io.lse[n] = top + std::log(total);
  }
  std::fill_n(io.counts, a.experts, 0);
  for (int64_t i = 0; i < a.topK; i++) {
    for (int64_t n = 0; n < a.rows; n++) {
      const int32_t place = io.counts[io.expert[n * a.topK + i]]++;
      io.slot[n * a.topK + i] = place < a.capacity ? place : -1;
    }
  }
}

template <class Real>
void router_backward(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const op::RouterBackward<Real> io(call);
  const std::vector<double> share = load_share(a, io.allCounts);
  for (int64_t n = 0; n < a.rows; n++) {
    const Real* p = io.probs + n * a.experts;
    std::vector<double> dp(a.experts);
    for (int64_t e = 0; e < a.experts; e++)
      dp[e] = 1.0 * a.auxCoefficient * a.experts * share[e] / (a.worldSize * a.rows);
    if (a.topK == 1 && io.slot[n] >= 0) dp[io.expert[n]] += io.dweight[n];
    double inner = 0;
    for (int64_t e = 0; e < a.experts; e++) inner += p[e] * dp[e];
    std::vector<double> dlogits(a.experts);
    for (int64_t e = 0; e < a.experts; e++) {
      dlogits[e] = p[e] * (dp[e] - inner);
      if (io.lse) dlogits[e] += 2.0 * a.zCoefficient * io.lse[n] / (a.worldSize * a.rows) * p[e];
    }
    // For k > 1 the weights are the softmax of the chosen logits l, so d weight_i / d l_j =
    // weight_i ((i == j) - weight_j).
    for (int64_t j = n * a.topK; a.topK > 1 && j < (n + 1) * a.topK; j++) {
      for (int64_t i = n * a.topK; i < (n + 1) * a.topK; i++) {
        if (io.slot[i] >= 0) dlogits[io.expert[j]] += io.dweight[i] * io.weight[i] * ((i == j) - io.weight[j]);
      }
    }
    for (int64_t j = 0; j < a.dim; j++) {
      Real& dx = io.dx[n * a.dim + j];
      double sum = a.accumulate ? dx : 0;
      for (int64_t e = 0; e < a.experts; e++) {
        sum += dlogits[e] * io.w[e * a.dim + j];
        io.dw[e * a.dim + j] += dlogits[e] * io.x[n * a.dim + j];
      }
      dx = sum;
    }
  }
}

template <class Real>
void aux_loss(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const op::AuxLoss<Real> io(call);
  const std::vector<double> share = load_share(a, io.allCounts);
  double loss = 0;
  for (int64_t n = 0; n < a.rows; n++)
    for (int64_t e = 0; e < a.experts; e++)
      loss += a.experts * share[e] * io.probs[n * a.experts + e] / (a.worldSize * a.rows);
  io.loss[0] = (a.accumulate ? io.loss[0] : 0) + a.scale * loss;
}

template <class Real>
void z_loss(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const op::ZLoss<Real> io(call);
  double loss = a.accumulate ? io.loss[0] : 0;
  for (int64_t n = 0; n < a.rows; n++) loss += 1.0 * a.scale * io.lse[n] * io.lse[n];
  io.loss[0] = loss;
}

template <class Real>
void permute(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const op::Permute<Real> io(call);
  for (int64_t c = 0; c < a.rows * a.topK; c++) {
    const int64_t row = routed_row(a, io, c);
    if (row >= 0) std::copy_n(io.x + c / a.topK * a.dim, a.dim, io.rows + row * a.dim);
  }
}

template <class Real>
void permute_backward(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const op::PermuteBackward<Real> io(call);
  for (int64_t n = 0; n < a.rows; n++) {
    for (int64_t j = 0; j < a.dim; j++) {
      Real& dx = io.dx[n * a.dim + j];
      double sum = a.accumulate ? dx : 0;
      for (int64_t c = n * a.topK; c < (n + 1) * a.topK; c++) {
        const int64_t row = routed_row(a, io, c);
        if (row >= 0) sum += io.drows[row * a.dim + j];
      }
      dx = sum;
    }
  }
}

template <class Real>
void unpermute(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const op::Unpermute<Real> io(call);
  for (int64_t n = 0; n < a.rows; n++) {
    for (int64_t j = 0; j < a.dim; j++) {
      double sum = 0;
      for (int64_t c = n * a.topK; c < (n + 1) * a.topK; c++) {
        const int64_t row = routed_row(a, io, c);
        if (row >= 0) sum += 1.0 * io.weight[c] * io.rows[row * a.dim + j];
      }
      io.y[n * a.dim + j] = sum;
    }
  }
}

template <class Real>
void unpermute_backward(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const op::UnpermuteBackward<Real> io(call);
  for (int64_t c = 0; c < a.rows * a.topK; c++) {
    const Real* dy = io.dy + c / a.topK * a.dim;
    const int64_t row = routed_row(a, io, c);
    double dweight = 0;
    for (int64_t j = 0; row >= 0 && j < a.dim; j++) {
      dweight += 1.0 * dy[j] * io.rows[row * a.dim + j];
      io.drows[row * a.dim + j] = io.weight[c] * dy[j];
    }
    io.dweight[c] = dweight;
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
