// Over parameters and gradients: copies, zero, norms, AdamW.
#include "cpu/vec.h"

namespace scmoe::SCMOE_ISA {
namespace {

constexpr int64_t kChunk =
    8192;  // elements per partial sum: fixed, so that the sum does not depend on the number of threads

double square_sum_of(const float* x, int64_t n) {
  double s = 0;
#pragma omp simd reduction(+ : s)
  for (int64_t i = 0; i < n; i++) s += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return s;
}

}  // namespace

void cast(const OpCall& call, Stream* stream) {
  for (int i = 0; i < call.num_in; i++) {
    const float* x = in(call, i);
    float* y = out(call, i);
    parallel_for(stream, call.in_elements[i], kChunk, [=](int64_t begin, int64_t end, int) {
      __builtin_memcpy(y + begin, x + begin, static_cast<size_t>(end - begin) * sizeof(float));
    });
  }
}

void zero(const OpCall& call, Stream* stream) {
  for (int i = 0; i < call.num_out; i++) {
    float* y = out(call, i);
    parallel_for(stream, call.out_elements[i], kChunk, [=](int64_t begin, int64_t end, int) {
      __builtin_memset(y + begin, 0, static_cast<size_t>(end - begin) * sizeof(float));
    });
  }
}

void square_sum(const OpCall& call, Stream* stream) {
  double total = 0;
  for (int i = 0; i < call.num_in; i++) {
    const float* x = in(call, i);
    const int64_t n = call.in_elements[i], chunks = (n + kChunk - 1) / kChunk;
    double* partial =
        static_cast<double*>(stream_scratch(stream, kShared, static_cast<size_t>(chunks) * sizeof(double)));
    parallel_for(stream, chunks, 1, [=](int64_t begin, int64_t end, int) {
      for (int64_t c = begin; c < end; c++) partial[c] = square_sum_of(x + c * kChunk, min(kChunk, n - c * kChunk));
    });
    for (int64_t c = 0; c < chunks; c++) total += partial[c];
  }
  out(call, 0)[0] = static_cast<float>(total);
}

void global_norm(const OpCall& call, Stream*) {
  out(call, 0)[0] = __builtin_sqrtf(in(call, 0)[0] + in(call, 1)[0]);
}

// w -= rate * (m / c1 / (sqrt(v / c2) + epsilon) + decay * w), c1 = 1 - beta1^t, c2 = 1 - beta2^t (arXiv 1711.05101,
// Algorithm 2)
void adamw(const OpCall& call, Stream* stream) {
  const Attrs& a = *call.attrs;
  const float *g = in(call, 0), *hyper = in(call, 1), norm = in(call, 2)[0];
  float *w = out(call, 0), *m = out(call, 1), *v = out(call, 2);
  const float factor = a.clip < norm ? a.clip / norm : 1.0f;
  const float beta1 = a.beta1, beta2 = a.beta2, epsilon = a.epsilon;
  const float step = hyper[0] / hyper[1], correction = 1.0f / hyper[2], keep = 1.0f - hyper[0] * a.weightDecay;
  parallel_for(stream, a.elements, kChunk, [=](int64_t begin, int64_t end, int) {
#pragma omp simd
    for (int64_t i = begin; i < end; i++) {
      const float grad = g[i] * factor;
      const float mean = beta1 * m[i] + (1.0f - beta1) * grad;
      const float square = beta2 * v[i] + (1.0f - beta2) * grad * grad;
      m[i] = mean;
      v[i] = square;
      w[i] = keep * w[i] - step * mean / (__builtin_sqrtf(square * correction) + epsilon);
    }
  });
}

}  // namespace scmoe::SCMOE_ISA
