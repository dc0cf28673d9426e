// The gate: which experts a token goes to, with what weight, and the gradient of both and of the balance loss.
#include "cpu/gemm.h"
#include "cpu/vec.h"

namespace scmoe::SCMOE_ISA {
namespace {

// Softmax in place; returns the log-sum-exp.
float softmax(float* probs, int64_t experts) {
  const float top = maximum(probs, experts), total = exp_row(probs, probs, experts, 1.0f, top);
  for (int64_t e = 0; e < experts; e++) probs[e] /= total;
  return top + __builtin_logf(total);
}

// The k largest but the one `excluded`, ties to the lower index. The softmax comes before the choice: after it, k = 1
// would leave no gradient.
void choose(const float* probs, int64_t experts, int64_t k, int32_t excluded, int32_t* expert, float* weight) {
  float chosen = 0;
  for (int64_t i = 0; i < k; i++) {
    int32_t best = -1;
    for (int32_t e = 0; e < experts; e++) {
      bool taken = e == excluded;
      for (int64_t j = 0; j < i; j++) taken |= expert[j] == e;
      if (!taken && (best < 0 || probs[e] > probs[best])) best = e;
    }
    expert[i] = best;
    weight[i] = probs[best];
    chosen += probs[best];
  }
  for (int64_t i = 0; k > 1 && i < k; i++) weight[i] /= chosen;
}

// slot[n, i] = how many came before it at that expert: all first choices in token order, then all second ones.
void assign_slots(const Attrs& a, const int32_t* expert, int32_t* slot, int32_t* counts) {
  for (int64_t e = 0; e < a.experts; e++) counts[e] = 0;
  for (int64_t i = 0; i < a.topK; i++) {
    for (int64_t n = 0; n < a.rows; n++) {
      const int32_t place = counts[expert[n * a.topK + i]]++;
      slot[n * a.topK + i] = place < a.capacity ? place : -1;
    }
  }
}

// share[e] = sum over ranks of allCounts[q][e] / (W * N * k), the f_e of the balance loss
void load_share(const Attrs& a, const int32_t* all_counts, float* share) {
  const double total = static_cast<double>(a.worldSize * a.rows * a.topK);
  for (int64_t e = 0; e < a.experts; e++) {
    int64_t count = 0;
    for (int64_t q = 0; q < a.worldSize; q++) count += all_counts[q * a.experts + e];
    share[e] = static_cast<float>(static_cast<double>(count) / total);
  }
}

}  // namespace

void router(const OpCall& call, Stream* stream) {
  const Attrs& a = *call.attrs;
  float *probs = out(call, 0), *weight = out(call, 2);
  int32_t *expert = out<int32_t>(call, 1), *slot = out<int32_t>(call, 3), *counts = out<int32_t>(call, 4);
  const int32_t* taken = call.num_in > 2 ? in<int32_t>(call, 2) : nullptr;
  float* lse = call.num_out > 5 ? out(call, 5) : nullptr;
  gemm_team({.m = a.rows,
             .n = a.experts,
             .k = a.dim,
             .a = {in(call, 0), a.dim},
             .b = {in(call, 1), a.dim, true},
             .c = probs,
             .ldc = a.experts},
            stream);
  parallel_for(stream, a.rows, 16, [=](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; n++) {
      const float whole = softmax(probs + n * a.experts, a.experts);
      if (lse) lse[n] = whole;
      choose(probs + n * a.experts, a.experts, a.topK, taken ? taken[n] : -1, expert + n * a.topK, weight + n * a.topK);
    }
  });
  assign_slots(a, expert, slot, counts);
}

void router_backward(const OpCall& call, Stream* stream) {
  const Attrs& a = *call.attrs;
  const float *dweight = in(call, 0), *probs = in(call, 1), *weight = in(call, 3), *x = in(call, 6), *w = in(call, 7);
  const int32_t *expert = in<int32_t>(call, 2), *slot = in<int32_t>(call, 4), *all_counts = in<int32_t>(call, 5);
  const int64_t experts = a.experts, k = a.topK;
  float* share = scratch(stream, kShared, experts + a.rows * experts);
  float* dlogits = share + experts;
  load_share(a, all_counts, share);
  const float* lse = call.num_in > 8 ? in(call, 8) : nullptr;
  const float z = 2.0f * a.zCoefficient / static_cast<float>(a.worldSize * a.rows);
  const float aux = a.auxCoefficient * static_cast<float>(experts) / static_cast<float>(a.worldSize * a.rows);

  parallel_for(stream, a.rows, 16, [=](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; n++) {
      const float* p = probs + n * experts;
      float* d = dlogits + n * experts;
      for (int64_t e = 0; e < experts; e++) d[e] = aux * share[e];
      // weight = p for k = 1, else p / (sum of the chosen p).
      float chosen = k > 1 ? 0.0f : 1.0f, mean = 0;
      for (int64_t i = n * k; k > 1 && i < n * k + k; i++) {
        chosen += p[expert[i]];
        mean += slot[i] < 0 ? 0.0f : dweight[i] * weight[i];
      }
      for (int64_t i = n * k; i < n * k + k; i++) d[expert[i]] += ((slot[i] < 0 ? 0.0f : dweight[i]) - mean) / chosen;
      const float inner = dot(p, d, experts) - (lse ? z * lse[n] : 0.0f);  // d lse / d logit = p
      for (int64_t e = 0; e < experts; e++) d[e] = p[e] * (d[e] - inner);
    }
  });
  gemm_team({.m = a.rows,
             .n = a.dim,
             .k = experts,
             .a = {dlogits, experts},
             .b = {w, a.dim},
             .c = out(call, 0),
             .ldc = a.dim,
             .accumulate = a.accumulate != 0},
            stream);
  gemm_team({.m = experts,
             .n = a.dim,
             .k = a.rows,
             .a = {dlogits, experts, true},
             .b = {x, a.dim},
             .c = out(call, 1),
             .ldc = a.dim,
             .accumulate = true},
            stream);
}

void aux_loss(const OpCall& call, Stream* stream) {
  const Attrs& a = *call.attrs;
  const float* probs = in(call, 0);
  float* share = scratch(stream, kShared, a.experts);
  load_share(a, in<int32_t>(call, 1), share);
  double loss = 0;
  for (int64_t n = 0; n < a.rows; n++) loss += dot(probs + n * a.experts, share, a.experts);
  loss *= static_cast<double>(a.experts) / static_cast<double>(a.worldSize * a.rows);
  out(call, 0)[0] = (a.accumulate ? out(call, 0)[0] : 0.0f) + static_cast<float>(loss * a.scale);
}

void z_loss(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const float* lse = in(call, 0);
  double loss = 0;
#pragma omp simd reduction(+ : loss)
  for (int64_t n = 0; n < a.rows; n++) loss += static_cast<double>(lse[n]) * static_cast<double>(lse[n]);
  out(call, 0)[0] = (a.accumulate ? out(call, 0)[0] : 0.0f) + static_cast<float>(loss * a.scale);
}

}  // namespace scmoe::SCMOE_ISA
