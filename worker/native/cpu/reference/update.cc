// The loss, norms and the update.
#include <algorithm>
#include <cassert>
#include <cmath>

#include "cpu/reference/reference.h"

namespace scmoe::reference {

template <class Real>
void cross_entropy(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  double loss = 0;
  for (int64_t n = 0; n < a.batch * a.sequence; n++) {
    const Real* x = in<Real>(call, 0) + n * a.vocabulary;
    const int32_t target = in<int32_t>(call, 1)[n / a.sequence * (a.sequence + 1) + n % a.sequence + 1];
    const double top = *std::max_element(x, x + a.vocabulary);
    double total = 0;
    for (int64_t v = 0; v < a.vocabulary; v++) total += std::exp(x[v] - top);
    loss += top + std::log(total) - x[target];
    for (int64_t v = 0; call.num_out > 1 && v < a.vocabulary;
         v++)  // dlogits may be logits: x[v] is read for the last time here
      out<Real>(call, 1)[n * a.vocabulary + v] = a.scale * (std::exp(x[v] - top) / total - (v == target));
  }
  out<Real>(call, 0)[0] = (a.accumulate ? out<Real>(call, 0)[0] : 0) + a.scale * loss;
}

template <class Real>
void cast(const OpCall& call, Stream*) {
  for (int i = 0; i < call.num_in; i++) std::copy_n(in<Real>(call, i), call.in_elements[i], out<Real>(call, i));
}

template <class Real>
void zero(const OpCall& call, Stream*) {
  for (int i = 0; i < call.num_out; i++) std::fill_n(out<Real>(call, i), call.out_elements[i], Real{0});
}

template <class Real>
void square_sum(const OpCall& call, Stream*) {
  double sum = 0;
  for (int i = 0; i < call.num_in; i++)
    for (int64_t j = 0; j < call.in_elements[i]; j++) sum += 1.0 * in<Real>(call, i)[j] * in<Real>(call, i)[j];
  out<Real>(call, 0)[0] = sum;
}

template <class Real>
void global_norm(const OpCall& call, Stream*) {
  out<Real>(call, 0)[0] = std::sqrt(1.0 * in<Real>(call, 0)[0] + in<Real>(call, 1)[0]);
}

template <class Real>
void adamw(const OpCall& call, Stream*) {
  const Attrs& a = *call.attrs;
  assert(a.clip > 0);  // the job's schema refuses 0, which would take every gradient away
  const Real *hyper = in<Real>(call, 1), norm = in<Real>(call, 2)[0];
  Real *w = out<Real>(call, 0), *m = out<Real>(call, 1), *v = out<Real>(call, 2);
  for (int64_t i = 0; i < a.elements; i++) {
    const double g = in<Real>(call, 0)[i] * std::min(1.0, 1.0 * a.clip / norm);
    m[i] = 1.0 * a.beta1 * m[i] + (1.0 - a.beta1) * g;
    v[i] = 1.0 * a.beta2 * v[i] + (1.0 - a.beta2) * g * g;
    w[i] -= hyper[0] * (m[i] / hyper[1] / (std::sqrt(v[i] / hyper[2]) + a.epsilon) + a.weightDecay * w[i]);
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
