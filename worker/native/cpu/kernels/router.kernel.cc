// The gate: the experts that each token is sent to and their weights, and the gradient of the
// weights and of the balance loss.
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

// The k experts of one token, and their weights.
struct Choices {
  int32_t* expert;
  float* weight;
};

// Chooses the k largest logits except that of the expert `excluded`, and of equal ones the lower
// index. Far below the largest logit all probabilities are equal or zero, so they cannot choose and
// cannot be divided by their sum. If k > 1, the weights are the softmax of the chosen logits, which
// is the same as the probabilities over their sum.
void choose(const float* logits, const Attrs& a, int32_t excluded, const Choices& to) {
  const int64_t experts = a.experts, k = a.topK;
  float total = 0;
  for (int64_t i = 0; i < k; i++) {
    int32_t best = -1;
    for (int32_t e = 0; e < experts; e++) {
      bool taken = e == excluded;
      for (int64_t j = 0; j < i; j++) taken |= to.expert[j] == e;
      if (!taken && (best < 0 || logits[e] > logits[best])) best = e;
    }
    to.expert[i] = best;
    to.weight[i] = __builtin_expf(logits[best] - logits[to.expert[0]]);
    total += to.weight[i];
  }
  for (int64_t i = 0; i < k; i++) to.weight[i] /= total;
}

// slot[n, i] = the number of earlier choices of that expert, where all first choices in token order
// come before all second ones.
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
  const op::Router<> io(call);
  gemm_team({.m = a.rows,
             .n = a.experts,
             .k = a.dim,
             .a = {io.x, a.dim},
             .b = {io.w, a.dim, true},
             .c = io.probs,
             .ldc = a.experts},
            stream);
  parallel_for(stream, a.rows, 16, [=](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; n++) {
      float* probs = io.probs + n * a.experts;  // still the logits
      const Choices choices{io.expert + n * a.topK, io.weight + n * a.topK};
      choose(probs, a, io.taken ? io.taken[n] : -1, choices);
      const float whole = softmax(probs, a.experts);
      if (io.lse) io.lse[n] = whole;
      // The weight of a single expert is its share of the softmax over all: a softmax over the
      // chosen one alone would be 1 and leave no gradient.
      if (a.topK == 1) choices.weight[0] = probs[choices.expert[0]];
    }
  });
  assign_slots(a, io.expert, io.slot, io.counts);
}

void router_backward(const OpCall& call, Stream* stream) {
  const Attrs& a = *call.attrs;
  const op::RouterBackward<> io(call);
  const int64_t experts = a.experts, k = a.topK;
  float* share = scratch(stream, kShared, experts + a.rows * experts);
  float* dlogits = share + experts;
  load_share(a, io.allCounts, share);
  const float z = 2.0f * a.zCoefficient / static_cast<float>(a.worldSize * a.rows);
  const float aux = a.auxCoefficient * static_cast<float>(experts) / static_cast<float>(a.worldSize * a.rows);

  parallel_for(stream, a.rows, 16, [=](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; n++) {
      const float* p = io.probs + n * experts;
      float* d = dlogits + n * experts;
      for (int64_t e = 0; e < experts; e++) d[e] = aux * share[e];
      const auto dweight = [=](int64_t i) { return io.slot[i] < 0 ? 0.0f : io.dweight[i]; };
      // If k = 1, the weight is p.
      if (k == 1) d[io.expert[n]] += dweight(n);
      // D lse / d logit = p
      const float inner = dot(p, d, experts) - (io.lse ? z * io.lse[n] : 0.0f);
      for (int64_t e = 0; e < experts; e++) d[e] = p[e] * (d[e] - inner);
      if (k == 1) continue;
      // The weights are the softmax of the chosen logits.
      float mean = 0;
      for (int64_t i = n * k; i < n * k + k; i++) mean += dweight(i) * io.weight[i];
      for (int64_t i = n * k; i < n * k + k; i++) d[io.expert[i]] += io.weight[i] * (dweight(i) - mean);
    }
  });
  gemm_team({.m = a.rows,
             .n = a.dim,
             .k = experts,
             .a = {dlogits, experts},
             .b = {io.w, a.dim},
             .c = io.dx,
             .ldc = a.dim,
             .accumulate = a.accumulate != 0},
            stream);
  gemm_team({.m = experts,
             .n = a.dim,
             .k = a.rows,
             .a = {dlogits, experts, true},
             .b = {io.x, a.dim},
             .c = io.dw,
             .ldc = a.dim,
             .accumulate = true},
            stream);
}

void aux_loss(const OpCall& call, Stream* stream) {
  const Attrs& a = *call.attrs;
  const op::AuxLoss<> io(call);
  float* share = scratch(stream, kShared, a.experts);
  load_share(a, io.allCounts, share);
  double loss = 0;
  for (int64_t n = 0; n < a.rows; n++) loss += dot(io.probs + n * a.experts, share, a.experts);
  loss *= static_cast<double>(a.experts) / static_cast<double>(max(1, a.worldSize * a.rows));
  io.loss[0] = (a.accumulate ? io.loss[0] : 0.0f) + static_cast<float>(loss * a.scale);
}

void z_loss(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const op::ZLoss<> io(call);
  double loss = 0;
#pragma omp simd reduction(+ : loss)
  for (int64_t n = 0; n < a.rows; n++) loss += static_cast<double>(io.lse[n]) * static_cast<double>(io.lse[n]);
  io.loss[0] = (a.accumulate ? io.loss[0] : 0.0f) + static_cast<float>(loss * a.scale);
}

}  // namespace scmoe::SCMOE_ISA
