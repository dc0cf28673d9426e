// Copies between token order and routed rows. The row of choice i of token n is first[expert[n, i]]
// + slot[n, i]; slot -1 means that the choice is dropped.
#include "cpu/routing.h"
#include "cpu/vec.h"

namespace scmoe::SCMOE_ISA {
namespace {

// Finds the rows of the choices of one call.
struct Routing {
  const int32_t *expert, *slot;
  const int64_t* first;
  int64_t rows, dim, k;
  int64_t row(int64_t choice) const { return slot[choice] < 0 ? -1 : first[expert[choice]] + slot[choice]; }
};

// `io` has the buffers expert, slot and counts.
template <class Buffers>
Routing routing_of(const Attrs& a, const Buffers& io, Stream* stream) {
  int64_t* first =
      static_cast<int64_t*>(stream_scratch(stream, kShared, static_cast<size_t>(a.experts) * sizeof(int64_t)));
  first_rows(io.counts, a.experts, a.capacity, first);
  return {.expert = io.expert, .slot = io.slot, .first = first, .rows = a.rows, .dim = a.dim, .k = a.topK};
}

struct Gathered {
  const float *rows, *scale;  // scale may be null, which means 1
  float* y;
};

// y[n] (+)= sum over kept choices of scale[n, i] * rows[row(n, i)]
void gather(const Routing& r, const Gathered& io, bool accumulate, Stream* stream) {
  parallel_for(stream, r.rows, 16, [=](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; n++) {
      bool started = accumulate;
      for (int64_t c = n * r.k; c < n * r.k + r.k; c++) {
        const int64_t row = r.row(c);
        if (row < 0) continue;
        (started ? add_scaled : copy_scaled)(io.rows + row * r.dim, io.scale ? io.scale[c] : 1.0f, io.y + n * r.dim,
                                             r.dim);
        started = true;
      }
      if (!started) clear(io.y + n * r.dim, r.dim);
    }
  });
}

}  // namespace

void permute(const OpCall& call, Stream* stream) {
  const op::Permute<> io(call);
  const Routing r = routing_of(*call.attrs, io, stream);
  parallel_for(stream, r.rows * r.k, 16, [=](int64_t begin, int64_t end, int) {
    for (int64_t c = begin; c < end; c++) {
      const int64_t row = r.row(c);
      if (row >= 0) copy_scaled(io.x + c / r.k * r.dim, 1.0f, io.rows + row * r.dim, r.dim);
    }
  });
}

void permute_backward(const OpCall& call, Stream* stream) {
  const op::PermuteBackward<> io(call);
  gather(routing_of(*call.attrs, io, stream), {io.drows, nullptr, io.dx}, call.attrs->accumulate != 0, stream);
}

void unpermute(const OpCall& call, Stream* stream) {
  const op::Unpermute<> io(call);
  gather(routing_of(*call.attrs, io, stream), {io.rows, io.weight, io.y}, false, stream);
}

void unpermute_backward(const OpCall& call, Stream* stream) {
  const op::UnpermuteBackward<> io(call);
  const Routing r = routing_of(*call.attrs, io, stream);
  parallel_for(stream, r.rows * r.k, 16, [=](int64_t begin, int64_t end, int) {
    for (int64_t c = begin; c < end; c++) {
      const int64_t row = r.row(c);
      io.dweight[c] = 0.0f;
      if (row < 0) continue;
      const float* d = io.dy + c / r.k * r.dim;
      io.dweight[c] = dot(d, io.rows + row * r.dim, r.dim);
      copy_scaled(d, io.weight[c], io.drows + row * r.dim, r.dim);
    }
  });
}

}  // namespace scmoe::SCMOE_ISA
