// Vectors of the instruction set at hand (GCC vector extensions) and the few functions that are worth writing with
// them. Everything else is a plain loop marked `omp simd`.
#pragma once

#include "cpu/kernels.h"

namespace scmoe::SCMOE_ISA {

#if defined(__AVX512F__)
inline constexpr int kLanes = 16;
#elif defined(__AVX2__)
inline constexpr int kLanes = 8;
#else
inline constexpr int kLanes = 4;
#endif

typedef float Vec __attribute__((vector_size(kLanes * 4)));
typedef float VecAny __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));  // in memory, at any address
typedef int32_t VecInt __attribute__((vector_size(kLanes * 4)));

#define SCMOE_INLINE inline __attribute__((always_inline))

SCMOE_INLINE Vec load(const float* p) {
  return *reinterpret_cast<const VecAny*>(p);
}
SCMOE_INLINE void store(float* p, Vec v) {
  *reinterpret_cast<VecAny*>(p) = v;
}
SCMOE_INLINE Vec splat(float x) {
  return x - Vec{};
}

SCMOE_INLINE float lane_sum(Vec v) {
  float sum = 0;
  for (int i = 0; i < kLanes; i++) sum += v[i];
  return sum;
}

// sum_i a[i] b[i], in four times kLanes partial sums.
inline float dot(const float* a, const float* b, int64_t n) {
  Vec s0{}, s1{}, s2{}, s3{};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    s0 += load(a + i) * load(b + i);
    s1 += load(a + i + kLanes) * load(b + i + kLanes);
    s2 += load(a + i + 2 * kLanes) * load(b + i + 2 * kLanes);
    s3 += load(a + i + 3 * kLanes) * load(b + i + 3 * kLanes);
  }
  for (; i + kLanes <= n; i += kLanes) s0 += load(a + i) * load(b + i);
  float sum = lane_sum((s0 + s1) + (s2 + s3));
  for (; i < n; i++) sum += a[i] * b[i];
  return sum;
}

inline float sum(const float* a, int64_t n) {
  Vec s0{}, s1{}, s2{}, s3{};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    s0 += load(a + i);
    s1 += load(a + i + kLanes);
    s2 += load(a + i + 2 * kLanes);
    s3 += load(a + i + 3 * kLanes);
  }
  for (; i + kLanes <= n; i += kLanes) s0 += load(a + i);
  float sum = lane_sum((s0 + s1) + (s2 + s3));
  for (; i < n; i++) sum += a[i];
  return sum;
}

inline float maximum(const float* a, int64_t n) {
  float m = a[0];
#pragma omp simd reduction(max : m)
  for (int64_t i = 0; i < n; i++) m = a[i] > m ? a[i] : m;
  return m;
}

// e^x, relative error below 2e-7, flat below -87 and above 88. Branch-free, so loops over it vectorise.
SCMOE_INLINE float exp_fast(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  const float shifted = x * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts; |r| <= ln 2 / 2
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const uint32_t power = (__builtin_bit_cast(uint32_t, shifted) + 127u)
                         << 23;  // 2^n: the bits of kRound fall out at the top
  return p * __builtin_bit_cast(float, power);
}

// sum_i e^(x[i] * scale - shift), leaving the terms in y.
inline float exp_row(const float* x, float* y, int64_t n, float scale, float shift) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; i++) {
    y[i] = exp_fast(x[i] * scale - shift);
    sum += y[i];
  }
  return sum;
}

}  // namespace scmoe::SCMOE_ISA
