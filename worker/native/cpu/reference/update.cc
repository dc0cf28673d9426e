// The loss, norms and the update.
#include <algorithm>
#include <cassert>
#include <cmath>

#include "cpu/reference/reference.h"

namespace scmoe::reference {

template <class Real>
void cross_entropy(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const op::CrossEntropy<Real> io(call);
  double loss = 0;
  for (int64_t n = 0; n < a.batch * a.sequence; n++) {
    const Real* x = io.logits + n * a.vocabulary;
    const int32_t target = io.tokens[n / a.sequence * (a.sequence + 1) + n % a.sequence + 1];
    const double top = *std::max_element(x, x + a.vocabulary);
    double total = 0;
    for (int64_t v = 0; v < a.vocabulary; v++) total += std::exp(x[v] - top);
    loss += top + std::log(total) - x[target];
    // dlogits may be the buffer of logits: x[v] is read for the last time here.
    for (int64_t v = 0; io.dlogits && v < a.vocabulary; v++)
      io.dlogits[n * a.vocabulary + v] = a.scale * (std::exp(x[v] - top) / total - (v == target));
  }
  io.loss[0] = (a.accumulate ? io.loss[0] : 0) + a.scale * loss;
}

template <class Real>
void cast(const OpCall& call, Stream*) {
  const op::Cast<Real> io(call);
  for (int i = 0; i < io.buffers.size; i++) std::copy_n(io.buffers[i], io.buffers.elements[i], io.copies[i]);
}

template <class Real>
void zero(const OpCall& call, Stream*) {
  const op::Zero<Real> io(call);
  for (int i = 0; i < io.buffers.size; i++) std::fill_n(io.buffers[i], io.buffers.elements[i], Real{0});
}

template <class Real>
void square_sum(const OpCall& call, Stream*) {
  const op::SquareSum<Real> io(call);
  double sum = 0;
  for (int i = 0; i < io.buffers.size; i++)
    for (int64_t j = 0; j < io.buffers.elements[i]; j++) sum += 1.0 * io.buffers[i][j] * io.buffers[i][j];
  io.y[0] = sum;
}

template <class Real>
void global_norm(const OpCall& call, Stream*) {
  const op::GlobalNorm<Real> io(call);
  io.norm[0] = std::sqrt(1.0 * io.dense[0] + io.expert[0]);
}

template <class Real>
void adamw(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  const op::Adamw<Real> io(call);
  assert(a.clip > 0);  // 0 would erase every gradient; the job's schema refuses it
  for (int64_t i = 0; i < a.elements; i++) {
    const double g = io.g[i] * std::min(1.0, 1.0 * a.clip / io.norm[0]);
    io.m[i] = 1.0 * a.beta1 * io.m[i] + (1.0 - a.beta1) * g;
    io.v[i] = 1.0 * a.beta2 * io.v[i] + (1.0 - a.beta2) * g * g;
    const double mean = io.m[i] / io.hyper[1], deviation = std::sqrt(io.v[i] / io.hyper[2]);
    io.w[i] -= io.hyper[0] * (mean / (deviation + a.epsilon) + a.weightDecay * io.w[i]);
  }
}

#define SCMOE_INSTANTIATE(name)                      \
  template void name<float>(const OpCall&, Stream*); \
  template void name<double>(const OpCall&, Stream*);
SCMOE_INSTANTIATE(cross_entropy)
SCMOE_INSTANTIATE(cast)
SCMOE_INSTANTIATE(zero)
SCMOE_INSTANTIATE(square_sum)
SCMOE_INSTANTIATE(global_norm)
SCMOE_INSTANTIATE(adamw)

}  // namespace scmoe::reference
