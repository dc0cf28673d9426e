// The ops of the MoE branch.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "cpu/reference.h"

namespace scmoe::reference {
namespace {

// kept[q][e] = min(allCounts[q][e], C) summed over the EP group, for each expert of this rank.
std::vector<int64_t> local_rows(const Attrs& a, const int32_t* all_counts) {
  const int64_t local = a.experts / a.expertParallelSize, group = a.rank / a.expertParallelSize;
  std::vector<int64_t> rows(local, 0);
  for (int64_t e = 0; e < local; e++)
    for (int64_t q = 0; q < a.expertParallelSize; q++)
      rows[e] += std::min<int64_t>(
          all_counts[(group * a.expertParallelSize + q) * a.experts + a.rank % a.expertParallelSize * local + e],
          a.capacity);
  return rows;
}

int64_t gelu_elements(const OpCall& call, int i) {
  const Attrs& a = *call.attrs;
  if (call.num_in <= i) return a.rows * a.dim;
  const std::vector<int64_t> rows = local_rows(a, in<int32_t>(call, i));
  return std::accumulate(rows.begin(), rows.end(), int64_t{0}) * a.dim;
}

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
void gelu(const OpCall& call, Stream*) {
  for (int64_t i = 0; i < gelu_elements(call, 1); i++) {
    const double x = in<Real>(call, 0)[i];
    out<Real>(call, 0)[i] = 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
  }
}

template <class Real>
void gelu_backward(const OpCall& call, Stream*) {
  for (int64_t i = 0; i < gelu_elements(call, 2); i++) {
    const double x = in<Real>(call, 1)[i], tanh = std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x));
    const double slope =
        0.5 * (1 + tanh) + 0.5 * x * (1 - tanh * tanh) * std::sqrt(2 / M_PI) * (1 + 3 * 0.044715 * x * x);
    out<Real>(call, 0)[i] = in<Real>(call, 0)[i] * slope;
  }
}

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
    std::stable_sort(order.begin(), order.end(), [&](int32_t l, int32_t r) { return p[l] > p[r]; });
    for (int64_t i = 0; i < a.topK; i++) chosen += p[order[i]];
    for (int64_t i = 0; i < a.topK; i++) {
      expert[n * a.topK + i] = order[i];
      weight[n * a.topK + i] = a.topK > 1 ? p[order[i]] / chosen : p[order[i]];
    }
    std::copy(p.begin(), p.end(), probs + n * a.experts);
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
        const double dlogit = p[e] * (dp[e] - inner);
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

template <class Real>
void grouped_linear(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const std::vector<int64_t> rows = local_rows(a, in<int32_t>(call, 3));
  int64_t row = 0;
  for (size_t e = 0; e < rows.size(); e++) {
    for (const int64_t end = row + rows[e]; row < end; row++) {
      for (int64_t o = 0; o < a.out; o++) {
        double y = in<Real>(call, 2)[e * a.out + o];
        for (int64_t i = 0; i < a.in; i++)
          y += 1.0 * in<Real>(call, 0)[row * a.in + i] * in<Real>(call, 1)[(e * a.out + o) * a.in + i];
        out<Real>(call, 0)[row * a.out + o] = y;
      }
    }
  }
}

template <class Real>
void grouped_linear_dgrad(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const std::vector<int64_t> rows = local_rows(a, in<int32_t>(call, 2));
  int64_t row = 0;
  for (size_t e = 0; e < rows.size(); e++) {
    for (const int64_t end = row + rows[e]; row < end; row++) {
      for (int64_t i = 0; i < a.in; i++) {
        double dx = 0;
        for (int64_t o = 0; o < a.out; o++)
          dx += 1.0 * in<Real>(call, 0)[row * a.out + o] * in<Real>(call, 1)[(e * a.out + o) * a.in + i];
        out<Real>(call, 0)[row * a.in + i] = dx;
      }
    }
  }
}

template <class Real>
void grouped_linear_wgrad(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const std::vector<int64_t> rows = local_rows(a, in<int32_t>(call, 2));
  int64_t first = 0;
  for (size_t e = 0; e < rows.size(); first += rows[e], e++) {
    for (int64_t o = 0; o < a.out; o++) {
      double db = out<Real>(call, 1)[e * a.out + o];
      for (int64_t row = first; row < first + rows[e]; row++) db += in<Real>(call, 0)[row * a.out + o];
      out<Real>(call, 1)[e * a.out + o] = db;
      for (int64_t i = 0; i < a.in; i++) {
        Real& to = out<Real>(call, 0)[(e * a.out + o) * a.in + i];
        double dw = to;
        for (int64_t row = first; row < first + rows[e]; row++)
          dw += 1.0 * in<Real>(call, 0)[row * a.out + o] * in<Real>(call, 1)[row * a.in + i];
        to = dw;
      }
    }
  }
}

#define SCMOE_INSTANTIATE(name)                      \
  template void name<float>(const OpCall&, Stream*); \
  template void name<double>(const OpCall&, Stream*);
SCMOE_INSTANTIATE(gelu)
SCMOE_INSTANTIATE(gelu_backward)
SCMOE_INSTANTIATE(router)
SCMOE_INSTANTIATE(router_backward)
SCMOE_INSTANTIATE(aux_loss)
SCMOE_INSTANTIATE(permute)
SCMOE_INSTANTIATE(permute_backward)
SCMOE_INSTANTIATE(unpermute)
SCMOE_INSTANTIATE(unpermute_backward)
SCMOE_INSTANTIATE(grouped_linear)
SCMOE_INSTANTIATE(grouped_linear_dgrad)
SCMOE_INSTANTIATE(grouped_linear_wgrad)

}  // namespace scmoe::reference
