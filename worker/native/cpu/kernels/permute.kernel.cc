// Between token order and routed rows. Row of choice i of token n: first[expert[n, i]] + slot[n, i]; slot -1 means
// dropped.
#include "cpu/routing.h"
#include "cpu/vec.h"

namespace scmoe::SCMOE_ISA {
namespace {

// The routing of one call, as found from input `i` on: expert, slot, counts.
struct Routing {
  const int32_t *expert, *slot;
  const int64_t* first;
  int64_t rows, dim, k;
  int64_t row(int64_t choice) const { return slot[choice] < 0 ? -1 : first[expert[choice]] + slot[choice]; }
};

Routing routing_of(const OpCall& call, int i, Stream* stream) {
  const Attrs& a = *call.attrs;
  int64_t* first =
      static_cast<int64_t*>(stream_scratch(stream, kShared, static_cast<size_t>(a.experts) * sizeof(int64_t)));
  first_rows(in<int32_t>(call, i + 2), a.experts, a.capacity, first);
  return {in<int32_t>(call, i), in<int32_t>(call, i + 1), first, a.rows, a.dim, a.topK};
}

void fill(float* y, int64_t n) {
#pragma omp simd
  for (int64_t j = 0; j < n; j++) y[j] = 0.0f;
}

// y[n] (+)= sum over kept choices of scale[n, i] * rows[row(n, i)]; scale null means 1.
void gather(const Routing& r, const float* rows, const float* scale, float* y, bool accumulate, Stream* stream) {
  parallel_for(stream, r.rows, 16, [=](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; n++) {
      bool started = accumulate;
      for (int64_t c = n * r.k; c < n * r.k + r.k; c++) {
        const int64_t row = r.row(c);
        if (row < 0) continue;
        (started ? add_scaled : copy_scaled)(rows + row * r.dim, scale ? scale[c] : 1.0f, y + n * r.dim, r.dim);
        started = true;
      }
      if (!started) fill(y + n * r.dim, r.dim);
    }
  });
}

}  // namespace

void permute(const OpCall& call, Stream* stream) {
  const Routing r = routing_of(call, 1, stream);
  const float* x = in(call, 0);
  float* rows = out(call, 0);
  parallel_for(stream, r.rows * r.k, 16, [=](int64_t begin, int64_t end, int) {
    for (int64_t c = begin; c < end; c++) {
      const int64_t row = r.row(c);
      if (row >= 0) copy_scaled(x + c / r.k * r.dim, 1.0f, rows + row * r.dim, r.dim);
    }
  });
}

void permute_backward(const OpCall& call, Stream* stream) {
  gather(routing_of(call, 1, stream), in(call, 0), nullptr, out(call, 0), call.attrs->accumulate != 0, stream);
}

void unpermute(const OpCall& call, Stream* stream) {
  gather(routing_of(call, 1, stream), in(call, 0), in(call, 4), out(call, 0), false, stream);
}

void unpermute_backward(const OpCall& call, Stream* stream) {
  const Routing r = routing_of(call, 2, stream);
  const float *dy = in(call, 0), *rows = in(call, 1), *weight = in(call, 5);
  float *drows = out(call, 0), *dweight = out(call, 1);
  parallel_for(stream, r.rows * r.k, 16, [=](int64_t begin, int64_t end, int) {
    for (int64_t c = begin; c < end; c++) {
      const int64_t row = r.row(c);
      dweight[c] = 0.0f;
      if (row < 0) continue;
      const float* d = dy + c / r.k * r.dim;
      dweight[c] = dot(d, rows + row * r.dim, r.dim);
      copy_scaled(d, weight[c], drows + row * r.dim, r.dim);
    }
  });
}

}  // namespace scmoe::SCMOE_ISA
