// Rotary positions (arXiv 2104.09864). The angles of position t follow from those of floor(t /
// kSpan) kSpan and of t mod kSpan by the sum formulas of sine and cosine, in double. That is as
// exact as a table of all positions and needs far fewer sines.
#include "cpu/vec.h"

namespace scmoe::SCMOE_ISA {
namespace {

constexpr int64_t kSpan = 64;

// Cosines and sines of whole spans, then of the places within a span: [spans + kSpan][half] each.
struct Table {
  double *cosine, *sine;
  int64_t spans, half;
};

Table table_of(const Attrs& a, int64_t half, Stream* stream) {
  const int64_t spans = (a.sequence + kSpan - 1) / kSpan, size = (spans + kSpan) * half;
  double* space = static_cast<double*>(stream_scratch(stream, kShared, static_cast<size_t>(2 * size) * sizeof(double)));
  const Table table{space, space + size, spans, half};
  const double base = static_cast<double>(a.base), sign = a.inverse ? -1.0 : 1.0;
  parallel_for(stream, half, 4, [=](int64_t begin, int64_t end, int) {
    for (int64_t j = begin; j < end; j++) {
      const double turn = sign * __builtin_pow(base, -static_cast<double>(j) / static_cast<double>(half));
      for (int64_t i = 0; i < spans + kSpan; i++) {
        const double angle = turn * static_cast<double>(i < spans ? i * kSpan : i - spans);
        table.cosine[i * half + j] = __builtin_cos(angle);
        table.sine[i * half + j] = __builtin_sin(angle);
      }
    }
  });
  return table;
}

// Writes cosine and sine of position t: [half] each.
void angles_of(const Table& table, int64_t t, float* cosine, float* sine) {
  const int64_t whole = t / kSpan * table.half, part = (table.spans + t % kSpan) * table.half;
  const double *c0 = table.cosine + whole, *s0 = table.sine + whole, *c1 = table.cosine + part, *s1 = table.sine + part;
#pragma omp simd
  for (int64_t j = 0; j < table.half; j++) {
    cosine[j] = static_cast<float>(c0[j] * c1[j] - s0[j] * s1[j]);
    sine[j] = static_cast<float>(s0[j] * c1[j] + c0[j] * s1[j]);
  }
}

void turn(float* low, float* high, const float* cosine, const float* sine, int64_t half) {
#pragma omp simd
  for (int64_t j = 0; j < half; j++) {
    const float x = low[j], y = high[j];
    low[j] = x * cosine[j] - y * sine[j];
    high[j] = y * cosine[j] + x * sine[j];
  }
}

}  // namespace

void rope(const OpCall& call, Stream* stream) {
  const Attrs& a = *call.attrs;
  const int64_t half = a.dim / a.heads / 2, turned = a.heads + a.keyValueHeads;
  const int64_t stride = (turned + a.keyValueHeads) * 2 * half, sequence = a.sequence;
  const op::Rope<> io(call);
  const Table table = table_of(a, half, stream);
  parallel_for(stream, a.batch * sequence, 4, [=](int64_t begin, int64_t end, int thread) {
    float *cosine = scratch(stream, thread, 2 * half), *sine = cosine + half;
    for (int64_t n = begin; n < end; n++) {
      angles_of(table, n % sequence, cosine, sine);
      for (int64_t h = 0; h < turned; h++) {  // queries, then keys
        float* low = io.qkv + n * stride + h * 2 * half;
        turn(low, low + half, cosine, sine, half);
      }
    }
  });
}

}  // namespace scmoe::SCMOE_ISA
