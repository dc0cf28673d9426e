// Causal attention, one (sequence, head) at a time, and within it one block of queries against all
// keys up to its last. So memory grows with the sequence and not with its square, and blocks above
// the diagonal are never touched (arXiv 2205.14135, without the split over keys, because the scores
// of a block fit in the cache). Query heads of a group share one head of keys and values (arXiv
// 2305.13245), which is packed once for all of them.
//
// Scores S, probabilities P and their gradients are strips [kQueries, strip_stride].
#include "cpu/gemm.h"
#include "cpu/vec.h"

namespace scmoe::SCMOE_ISA {
namespace {

constexpr int64_t kQueries = 64 / kTileRows * kTileRows;

struct Shape {
  int64_t batch, sequence, heads, dim, head_dim;
  int64_t groups;  // heads of keys and values
  int64_t group;   // query heads that share one of them
  int64_t stride;  // elements of a row of qkv: q | k | v, where k and v are groups * head_dim wide
  float scale;
  int64_t strip_stride, strip;  // elements of a row of a strip, and of a strip
};

Shape shape_of(const Attrs& a) {
  const int64_t head_dim = a.dim / a.heads;
  // An odd number of vectors, so that rows do not share cache sets.
  const int64_t stride = round_up(a.sequence, kLanes) + kLanes;
  return {.batch = a.batch,
          .sequence = a.sequence,
          .heads = a.heads,
          .dim = a.dim,
          .head_dim = head_dim,
          .groups = a.keyValueHeads,
          .group = a.heads / a.keyValueHeads,
          .stride = (a.heads + 2 * a.keyValueHeads) * head_dim,
          .scale = 1.0f / __builtin_sqrtf(static_cast<float>(head_dim)),
          .strip_stride = stride,
          .strip = kQueries * stride};
}

// One thread's memory, handed out piece by piece.
struct Space {
  float* next;
  float* take(int64_t elements) {
    float* piece = next;
    next += round_up(elements, 16);
    return piece;
  }
};

// The offsets in qkv or dqkv of the queries of a group's first head, its keys and its values. All
// rows have stride s.stride.
struct Place {
  int64_t q, k, v;
};

Place place_of(const Shape& s, int64_t b, int64_t g) {
  const int64_t row = b * s.sequence * s.stride, k = row + s.dim + g * s.head_dim;
  return {row + g * s.group * s.head_dim, k, k + s.groups * s.head_dim};
}

// Fills a row of scores up to a whole vector with values that add nothing to a softmax. Returns the
// new length. Rows have room for it.
int64_t pad(float* scores, int64_t valid) {
  const int64_t whole = round_up(valid, kLanes);
  for (int64_t i = valid; i < whole; i++) scores[i] = -1e30f;
  return whole;
}

void scale_row(float* y, float factor, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) y[i] *= factor;
}

void copy_rows(const float* x, int64_t rows, int64_t dim, float* y, int64_t stride) {
  for (int64_t n = 0; n < rows; n++, x += dim, y += stride) {
#pragma omp simd
    for (int64_t j = 0; j < dim; j++) y[j] = x[j];
  }
}

int64_t forward_space(const Shape& s) {
  return packed_elements(s.sequence, s.head_dim) + packed_elements(s.head_dim, s.sequence) + s.strip + gemm_space() +
         64;
}

// K^T and V of one group, packed.
struct KeysValues {
  Packed keys, values;
};

KeysValues pack_group(const Shape& s, const float* k, const float* v, Space& space) {
  const int64_t t = s.sequence, dim = s.head_dim;
  return {pack({k, s.stride, true}, t, dim, space.take(packed_elements(t, dim))),
          pack({v, s.stride}, dim, t, space.take(packed_elements(dim, t)))};
}

// q, stride s.stride, and o, stride d: [T, head_dim]. lse: [T].
void forward_head(const Shape& s, const float* q, const KeysValues& kv, float* o, float* lse, Space space) {
  float *strip = space.take(s.strip), *gemm = space.take(gemm_space());
  float total[kQueries];
  for (int64_t first = 0; first < s.sequence; first += kQueries) {
    const int64_t rows = min(s.sequence - first, kQueries), seen = first + rows;
    gemm_packed({.m = rows,
                 .n = seen,
                 .k = s.head_dim,
                 .a = {q + first * s.stride, s.stride},
                 .b = {},
                 .c = strip,
                 .ldc = s.strip_stride},
                kv.keys, gemm);
    for (int64_t i = 0; i < rows; i++) {
      float* p = strip + i * s.strip_stride;
      const int64_t valid = first + i + 1;
      const int64_t whole = pad(p, valid);
      const float top = maximum(p, whole) * s.scale;
      total[i] = exp_row(p, p, whole, s.scale, top);
      clear(p + valid, seen - valid);
      lse[first + i] = top + __builtin_logf(total[i]);
    }
    float* y = o + first * s.dim;
    gemm_packed({.m = rows, .n = s.head_dim, .k = seen, .a = {strip, s.strip_stride}, .b = {}, .c = y, .ldc = s.dim},
                kv.values, gemm);
    for (int64_t i = 0; i < rows; i++) scale_row(y + i * s.dim, 1.0f / total[i], s.head_dim);
  }
}

// The buffers of one head that the backward pass reads. grad and o have stride d.
struct Outcome {
  const float *grad, *o, *lse;
};

int64_t backward_space(const Shape& s) {
  return 2 * packed_elements(s.sequence, s.head_dim) + packed_elements(s.head_dim, s.sequence) +
         2 * packed_elements(s.head_dim, kQueries) + 2 * s.strip + 2 * s.sequence * s.head_dim + gemm_space() + 256;
}

// Turns the scores S into P = exp(S scale - lse), and dP = dO V^T, which is in `grads`, into dS = P
// (dP - <dO, O>) scale. Both are zero above the diagonal.
void softmax_backward(const Shape& s, const Outcome& y, int64_t first, int64_t rows, float* scores, float* grads) {
  for (int64_t i = 0; i < rows; i++) {
    float *p = scores + i * s.strip_stride, *d = grads + i * s.strip_stride;
    const int64_t valid = first + i + 1, at = (first + i) * s.dim;
    const float inner = dot(y.grad + at, y.o + at, s.head_dim), lse = y.lse[first + i];
    for (int64_t j = 0, whole = pad(p, valid); j < whole; j += kLanes) {
      const Vec e = exp_fast(load(p + j) * s.scale - lse);
      store(p + j, e);
      store(d + j, e * (load(d + j) - inner) * s.scale);
    }
    clear(p + valid, first + rows - valid);
    clear(d + valid, first + rows - valid);
  }
}

// The matrices that all query heads of a group share in the backward pass. dk, dv: [T, head_dim],
// summed over the query heads.
struct GroupBackward {
  Packed keys_t, values_t, keys;
  float *dk, *dv;
};

// q, dq: [T, head_dim], stride s.stride.
void backward_head(const Shape& s, const float* q, const Outcome& y, const GroupBackward& g, float* dq, Space space) {
  const int64_t t = s.sequence, dim = s.head_dim, stride = s.stride, ld = s.strip_stride;
  float *q_space = space.take(packed_elements(dim, kQueries)), *grad_space = space.take(packed_elements(dim, kQueries));
  float *scores = space.take(s.strip), *grads = space.take(s.strip), *gemm = space.take(gemm_space());
  for (int64_t first = 0; first < t; first += kQueries) {
    const int64_t rows = min(t - first, kQueries), seen = first + rows;
    const Matrix queries{q + first * stride, stride}, grad{y.grad + first * s.dim, s.dim};
    gemm_packed({.m = rows, .n = seen, .k = dim, .a = queries, .b = {}, .c = scores, .ldc = ld}, g.keys_t, gemm);
    gemm_packed({.m = rows, .n = seen, .k = dim, .a = grad, .b = {}, .c = grads, .ldc = ld}, g.values_t, gemm);
    softmax_backward(s, y, first, rows, scores, grads);
    gemm_packed({.m = rows, .n = dim, .k = seen, .a = {grads, ld}, .b = {}, .c = dq + first * stride, .ldc = stride},
                g.keys, gemm);
    gemm_packed(
        {.m = seen, .n = dim, .k = rows, .a = {grads, ld, true}, .b = {}, .c = g.dk, .ldc = dim, .accumulate = true},
        pack(queries, dim, rows, q_space), gemm);
    gemm_packed(
        {.m = seen, .n = dim, .k = rows, .a = {scores, ld, true}, .b = {}, .c = g.dv, .ldc = dim, .accumulate = true},
        pack(grad, dim, rows, grad_space), gemm);
  }
}

}  // namespace

void attention(const OpCall& call, Stream* stream) {
  const Shape s = shape_of(*call.attrs);
  const op::Attention<> io(call);
  parallel_for(stream, s.batch * s.heads, 1, [=](int64_t begin, int64_t end, int thread) {
    const Space all{scratch(stream, thread, forward_space(s))};
    Space space = all;
    KeysValues kv{};
    for (int64_t unit = begin; unit < end; unit++) {
      const int64_t b = unit / s.heads, h = unit % s.heads;
      const Place at = place_of(s, b, h / s.group);
      if (unit == begin || h % s.group == 0) {
        space = all;
        kv = pack_group(s, io.qkv + at.k, io.qkv + at.v, space);
      }
      forward_head(s, io.qkv + at.q + h % s.group * s.head_dim, kv, io.o + b * s.sequence * s.dim + h * s.head_dim,
                   io.lse + unit * s.sequence, space);
    }
  });
}

// A thread works on one group at a time and on its query heads in order, so their sums dk and dv do
// not depend on the number of threads.
void attention_backward(const OpCall& call, Stream* stream) {
  const Shape s = shape_of(*call.attrs);
  const int64_t t = s.sequence, dim = s.head_dim;
  const op::AttentionBackward<> io(call);
  parallel_for(stream, s.batch * s.groups, 1, [=](int64_t begin, int64_t end, int thread) {
    for (int64_t unit = begin; unit < end; unit++) {
      const int64_t b = unit / s.groups;
      const Place at = place_of(s, b, unit % s.groups);
      Space space{scratch(stream, thread, backward_space(s))};
      const GroupBackward g{pack({io.qkv + at.k, s.stride, true}, t, dim, space.take(packed_elements(t, dim))),
                            pack({io.qkv + at.v, s.stride, true}, t, dim, space.take(packed_elements(t, dim))),
                            pack({io.qkv + at.k, s.stride}, dim, t, space.take(packed_elements(dim, t))),
                            space.take(t * dim), space.take(t * dim)};
      clear(g.dk, t * dim);
      clear(g.dv, t * dim);
      for (int64_t h = 0; h < s.group; h++) {
        const int64_t head = unit % s.groups * s.group + h, from = b * t * s.dim + head * dim, q = at.q + h * dim;
        const Outcome y{io.do_ + from, io.o + from, io.lse + (b * s.heads + head) * t};
        backward_head(s, io.qkv + q, y, g, io.dqkv + q, space);
      }
      copy_rows(g.dk, t, dim, io.dqkv + at.k, s.stride);
      copy_rows(g.dv, t, dim, io.dqkv + at.v, s.stride);
    }
  });
}

}  // namespace scmoe::SCMOE_ISA
