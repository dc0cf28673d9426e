// Vectors of the instruction set that the file is compiled for (GCC vector extensions), and the few
// functions that are worth writing with them. Everything else is a plain loop marked `omp simd`.
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
// In memory, at any address
typedef float VecAny __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));
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

// The elements that a float sums at most. A longer sum is a sum of such sums, or its roundings grow
// with its length.
inline constexpr int64_t kSumElements = 2048;
// The rows that are summed into floats of their own before they are added to a longer sum.
inline constexpr int64_t kSumRows = 256;

// The sum of body(first, count) over blocks of at most kSumElements of n elements.
template <class Body>
SCMOE_INLINE float sum_of_blocks(int64_t n, const Body& body) {
  float total = 0;
  for (int64_t i = 0; i < n; i += kSumElements) total += body(i, min(kSumElements, n - i));
  return total;
}

// Calls body(first, end) for blocks of at most kSumRows of `rows` rows.
template <class Body>
SCMOE_INLINE void each_block(int64_t rows, const Body& body) {
  for (int64_t n = 0; n < rows; n += kSumRows) body(n, min(n + kSumRows, rows));
}

// The next two functions take one block, in 4 * kLanes partial sums.
inline float dot_of_block(const float* a, const float* b, int64_t n) {
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

inline float sum_of_block(const float* a, int64_t n) {
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

// sum_i a[i] b[i]
inline float dot(const float* a, const float* b, int64_t n) {
  return sum_of_blocks(n, [=](int64_t i, int64_t count) { return dot_of_block(a + i, b + i, count); });
}

inline float sum(const float* a, int64_t n) {
  return sum_of_blocks(n, [=](int64_t i, int64_t count) { return sum_of_block(a + i, count); });
}

inline float maximum(const float* a, int64_t n) {
  float m = a[0];
#pragma omp simd reduction(max : m)
  for (int64_t i = 0; i < n; i++) m = a[i] > m ? a[i] : m;
  return m;
}

// e^x with a relative error below 2e-7. It is constant below -86 and above 86, so that neither it
// nor its inverse is subnormal, which would be slow. It is written with vectors because the
// compiler turns a scalar clamp into branches and then computes all of them.
SCMOE_INLINE Vec exp_fast(Vec x) {
  // Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
  const Vec low = splat(-86.0f), high = splat(86.0f), round = splat(12582912.0f);
  x = x < low ? low : x;
  x = x > high ? high : x;
  const Vec shifted = x * 1.44269504f + round;
  const Vec n = shifted - round;
  const Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts; |r| <= ln 2 / 2
  Vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  // 2^n: the shift drops the bits of `round` at the top.
  const VecInt power = (reinterpret_cast<VecInt>(shifted) + 127) << 23;
  return p * reinterpret_cast<Vec>(power);
}

SCMOE_INLINE Vec sigmoid(Vec x) {
  return 1.0f / (1.0f + exp_fast(-x));
}

// The first n < kLanes elements; the other lanes are zero.
SCMOE_INLINE Vec load_some(const float* p, int64_t n) {
  Vec v{};
  for (int i = 0; i < kLanes; i++) v[i] = i < n ? p[i] : 0.0f;
  return v;
}

SCMOE_INLINE void store_some(float* p, Vec v, int64_t n) {
  for (int i = 0; i < kLanes; i++)
    if (i < n) p[i] = v[i];
}

// The first n <= kLanes elements.
SCMOE_INLINE Vec load_most(const float* p, int64_t n) {
  return n == kLanes ? load(p) : load_some(p, n);
}

SCMOE_INLINE void store_most(float* p, Vec v, int64_t n) {
  n == kLanes ? store(p, v) : store_some(p, v, n);
}

inline void copy_scaled(const float* x, float scale, float* y, int64_t n) {
#pragma omp simd
  for (int64_t j = 0; j < n; j++) y[j] = scale * x[j];
}

inline void add_scaled(const float* x, float scale, float* y, int64_t n) {
#pragma omp simd
  for (int64_t j = 0; j < n; j++) y[j] += scale * x[j];
}

// y[i] = f(x[i]), where f takes and returns vectors.
template <class F>
SCMOE_INLINE void map(const float* x, float* y, int64_t n, const F& f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, f(load(x + i)));
  if (i < n) store_some(y + i, f(load_some(x + i, n - i)), n - i);
}

// y[i] = f(a[i], b[i])
template <class F>
SCMOE_INLINE void map(const float* a, const float* b, float* y, int64_t n, const F& f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, f(load(a + i), load(b + i)));
  if (i < n) store_some(y + i, f(load_some(a + i, n - i), load_some(b + i, n - i)), n - i);
}

// One block of exp_row.
inline float exp_of_block(const float* x, float* y, int64_t n, float scale, float shift) {
  Vec s0{}, s1{};
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    const Vec e0 = exp_fast(load(x + i) * scale - shift), e1 = exp_fast(load(x + i + kLanes) * scale - shift);
    store(y + i, e0);
    store(y + i + kLanes, e1);
    s0 += e0;
    s1 += e1;
  }
  for (; i + kLanes <= n; i += kLanes) {
    const Vec e = exp_fast(load(x + i) * scale - shift);
    store(y + i, e);
    s0 += e;
  }
  float total = lane_sum(s0 + s1);
  if (i == n) return total;
  store_some(y + i, exp_fast(load_some(x + i, n - i) * scale - shift), n - i);
  for (; i < n; i++) total += y[i];
  return total;
}

// Returns sum_i e^(x[i] * scale - shift) and leaves the terms in y.
inline float exp_row(const float* x, float* y, int64_t n, float scale, float shift) {
  return sum_of_blocks(n, [=](int64_t i, int64_t count) { return exp_of_block(x + i, y + i, count, scale, shift); });
}

inline void clear(float* y, int64_t n) {
#pragma omp simd
  for (int64_t j = 0; j < n; j++) y[j] = 0.0f;
}

}  // namespace scmoe::SCMOE_ISA
