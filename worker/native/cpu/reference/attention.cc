// Causal attention over key and value heads that query heads may share, and rotary positions.
#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/reference/reference.h"

namespace scmoe::reference {
namespace {

// A row of qkv is H query heads, KV key heads, KV value heads.
struct Heads {
  int64_t heads, group, head_dim, row;
  int64_t key(int64_t h) const { return (heads + h / group) * head_dim; }
  int64_t value(int64_t h) const { return key(h) + heads / group * head_dim; }
};

Heads heads_of(const Attrs& a) {
  const int64_t head_dim = a.dim / a.heads;
  return {a.heads, a.heads / a.keyValueHeads, head_dim, (a.heads + 2 * a.keyValueHeads) * head_dim};
}

// p[s] = softmax over s <= t of <q[t], k[s]> / sqrt(head_dim). Returns the log-sum-exp. q, k: one
// head of qkv.
template <class Real>
double attention_row(const Heads& s, const Real* q, const Real* k, int64_t t, std::vector<double>& p) {
  double top = -INFINITY, total = 0;
  for (int64_t i = 0; i <= t; i++) {
    p[i] = 0;
    for (int64_t c = 0; c < s.head_dim; c++)
      p[i] += 1.0 * q[t * s.row + c] * k[i * s.row + c] / std::sqrt(1.0 * s.head_dim);
    top = std::max(top, p[i]);
  }
  for (int64_t i = 0; i <= t; i++) total += std::exp(p[i] - top);
  for (int64_t i = 0; i <= t; i++) p[i] = std::exp(p[i] - top) / total;
  return top + std::log(total);
}

}  // namespace

template <class Real>
void attention(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const op::Attention<Real> io(call);
  const Heads s = heads_of(a);
  std::vector<double> p(a.sequence);
  for (int64_t b = 0; b < a.batch; b++) {
    for (int64_t h = 0; h < a.heads; h++) {
      const Real* row = io.qkv + b * a.sequence * s.row;
      const Real *q = row + h * s.head_dim, *k = row + s.key(h), *v = row + s.value(h);
      for (int64_t t = 0; t < a.sequence; t++) {
        io.lse[(b * a.heads + h) * a.sequence + t] = attention_row(s, q, k, t, p);
        for (int64_t c = 0; c < s.head_dim; c++) {
          double o = 0;
          for (int64_t i = 0; i <= t; i++) o += p[i] * v[i * s.row + c];
          io.o[(b * a.sequence + t) * a.dim + h * s.head_dim + c] = o;
        }
      }
    }
  }
}

// dP = dO V^T, dS = P (dP - <dO, O>), dQ = dS K / sqrt(head_dim), dK = dS^T Q / sqrt(head_dim), dV
// = P^T dO. dK and dV are summed over the query heads of a group.
template <class Real>
void attention_backward(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const op::AttentionBackward<Real> io(call);
  const Heads s = heads_of(a);
  const double scale = 1 / std::sqrt(1.0 * s.head_dim);
  std::vector<double> p(a.sequence), sum(a.batch * a.sequence * s.row, 0.0);
  for (int64_t b = 0; b < a.batch; b++) {
    for (int64_t h = 0; h < a.heads; h++) {
      const Real* row = io.qkv + b * a.sequence * s.row;
      const Real *q = row + h * s.head_dim, *k = row + s.key(h), *v = row + s.value(h);
      double* drow = sum.data() + b * a.sequence * s.row;
      double *dq = drow + h * s.head_dim, *dk = drow + s.key(h), *dv = drow + s.value(h);
      for (int64_t t = 0; t < a.sequence; t++) {
        attention_row(s, q, k, t, p);
        const int64_t at = (b * a.sequence + t) * a.dim + h * s.head_dim;
        const Real *grad = io.do_ + at, *o = io.o + at;
        double inner = 0;
        for (int64_t c = 0; c < s.head_dim; c++) inner += 1.0 * grad[c] * o[c];
        for (int64_t i = 0; i <= t; i++) {
          double dp = 0;
          for (int64_t c = 0; c < s.head_dim; c++) dp += 1.0 * grad[c] * v[i * s.row + c];
          const double ds = p[i] * (dp - inner) * scale;
          for (int64_t c = 0; c < s.head_dim; c++) {
            dq[t * s.row + c] += ds * k[i * s.row + c];
            dk[i * s.row + c] += ds * q[t * s.row + c];
            dv[i * s.row + c] += p[i] * grad[c];
          }
        }
      }
    }
  }
  std::copy(sum.begin(), sum.end(), io.dqkv);
}

template <class Real>
void rope(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const op::Rope<Real> io(call);
  const Heads s = heads_of(a);
  const int64_t half = s.head_dim / 2;
  for (int64_t n = 0; n < a.batch * a.sequence; n++) {
    for (int64_t h = 0; h < a.heads + a.keyValueHeads; h++) {  // queries, then keys
      Real *low = io.qkv + n * s.row + h * s.head_dim, *high = low + half;
      for (int64_t j = 0; j < half; j++) {
        const double turn = n % a.sequence * std::pow(1.0 * a.base, -2.0 * j / s.head_dim);
        const double angle = a.inverse ? -turn : turn, x = low[j], y = high[j];
        low[j] = x * std::cos(angle) - y * std::sin(angle);
        high[j] = y * std::cos(angle) + x * std::sin(angle);
      }
    }
  }
}

#define SCMOE_INSTANTIATE(name)                      \
  template void name<float>(const OpCall&, Stream*); \
  template void name<double>(const OpCall&, Stream*);
SCMOE_INSTANTIATE(attention)
SCMOE_INSTANTIATE(attention_backward)
SCMOE_INSTANTIATE(rope)

}  // namespace scmoe::reference
