// Ops over parameters and gradients: copies, zero, norms, AdamW.
#include "cpu/vec.h"

namespace scmoe::SCMOE_ISA {
namespace {

// Elements of a partial sum. The number is fixed, so that the sum does not depend on the number of
// threads.
constexpr int64_t kChunk = 8192;

double square_sum_of(const float* x, int64_t n) {
  double s = 0;
#pragma omp simd reduction(+ : s)
  for (int64_t i = 0; i < n; i++) s += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return s;
}

}  // namespace

void cast(const OpCall& call, Stream* stream) {
  const op::Cast<> io(call);
  for (int i = 0; i < io.buffers.size; i++) {
    const float* x = io.buffers[i];
    float* y = io.copies[i];
    parallel_for(stream, io.buffers.elements[i], kChunk, [=](int64_t begin, int64_t end, int) {
      __builtin_memcpy(y + begin, x + begin, static_cast<size_t>(end - begin) * sizeof(float));
    });
  }
}

void zero(const OpCall& call, Stream* stream) {
  const op::Zero<> io(call);
  for (int i = 0; i < io.buffers.size; i++) {
    float* y = io.buffers[i];
    parallel_for(stream, io.buffers.elements[i], kChunk, [=](int64_t begin, int64_t end, int) {
      __builtin_memset(y + begin, 0, static_cast<size_t>(end - begin) * sizeof(float));
    });
  }
}

void square_sum(const OpCall& call, Stream* stream) {
  const op::SquareSum<> io(call);
  double total = 0;
  for (int i = 0; i < io.buffers.size; i++) {
    const float* x = io.buffers[i];
    const int64_t n = io.buffers.elements[i], chunks = (n + kChunk - 1) / kChunk;
    double* partial =
        static_cast<double*>(stream_scratch(stream, kShared, static_cast<size_t>(chunks) * sizeof(double)));
    parallel_for(stream, chunks, 1, [=](int64_t begin, int64_t end, int) {
      for (int64_t c = begin; c < end; c++) partial[c] = square_sum_of(x + c * kChunk, min(kChunk, n - c * kChunk));
    });
    for (int64_t c = 0; c < chunks; c++) total += partial[c];
  }
  io.y[0] = static_cast<float>(total);
}

void global_norm(const OpCall& call, Stream*) {
  const op::GlobalNorm<> io(call);
  io.norm[0] = __builtin_sqrtf(io.dense[0] + io.expert[0]);
}

// w -= rate * (m / c1 / (sqrt(v / c2) + epsilon) + decay * w), where c1 = 1 - beta1^t and c2 = 1 -
// beta2^t (arXiv 1711.05101, Algorithm 2).
void adamw(const OpCall& call, Stream* stream) {
  const Attrs& a = *call.attrs;
  const op::Adamw<> io(call);
  const float norm = io.norm[0];
  const float factor = a.clip < norm ? a.clip / norm : 1.0f;
  const float beta1 = a.beta1, beta2 = a.beta2, epsilon = a.epsilon;
  const float step = io.hyper[0] / io.hyper[1], correction = 1.0f / io.hyper[2];
  const float keep = 1.0f - io.hyper[0] * a.weightDecay;
  parallel_for(stream, a.elements, kChunk, [=](int64_t begin, int64_t end, int) {
#pragma omp simd
    for (int64_t i = begin; i < end; i++) {
      const float grad = io.g[i] * factor;
      const float mean = beta1 * io.m[i] + (1.0f - beta1) * grad;
      const float square = beta2 * io.v[i] + (1.0f - beta2) * grad * grad;
      io.m[i] = mean;
      io.v[i] = square;
      io.w[i] = keep * io.w[i] - step * mean / (__builtin_sqrtf(square * correction) + epsilon);
    }
  });
}

}  // namespace scmoe::SCMOE_ISA
