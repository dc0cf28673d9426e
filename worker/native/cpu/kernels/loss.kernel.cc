// The ops at the two ends of the model, which read tokens: embedding and cross entropy. tokens: [B,
// T + 1], of which the first T columns are the inputs and the last T the targets.
#include "cpu/vec.h"

namespace scmoe::SCMOE_ISA {
namespace {

// The positions n of equal tokens as lists: next[n] is the next position with the token of n, or
// -1. `starts[n]` says whether n begins a list.
struct SameToken {
  int32_t *next, *starts;
};

SameToken same_token(const Attrs& a, const int32_t* tokens, Stream* stream) {
  const int64_t positions = a.batch * a.sequence, size = 2 * positions + a.vocabulary;
  int32_t* space = static_cast<int32_t*>(stream_scratch(stream, kShared, static_cast<size_t>(size) * sizeof(int32_t)));
  const SameToken lists{space, space + positions};
  int32_t* last = lists.starts + positions;  // of each token that occurs
  const auto token = [=](int64_t n) { return tokens[n / a.sequence * (a.sequence + 1) + n % a.sequence]; };
  for (int64_t n = 0; n < positions; n++) last[token(n)] = -1;
  for (int64_t n = 0; n < positions; n++) {
    int32_t& before = last[token(n)];
    lists.starts[n] = before < 0;
    lists.next[n] = -1;
    if (before >= 0) lists.next[before] = static_cast<int32_t>(n);
    before = static_cast<int32_t>(n);
  }
  return lists;
}

// y += x[n] + x[next(n)] + ..., until next is negative. A block of rows is summed in `part` first.
template <class Next>
SCMOE_INLINE void add_list(int64_t n, const Next& next, const float* x, int64_t dim, int64_t width, float* part,
                           float* y) {
  while (n >= 0) {
    int64_t after = next(n);
    if (after < 0) return add_scaled(x + n * dim, 1.0f, y, width);
    copy_scaled(x + n * dim, 1.0f, part, width);
    for (int64_t count = 1; after >= 0 && count < kSumRows; count++, after = next(after))
      add_scaled(x + after * dim, 1.0f, part, width);
    add_scaled(part, 1.0f, y, width);
    n = after;
  }
}

}  // namespace

void embedding(const OpCall& call, Stream* stream) {
  const int64_t sequence = call.attrs->sequence, dim = call.attrs->dim;
  const op::Embedding<> io(call);
  parallel_for(stream, call.attrs->batch * sequence, 16, [=](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; n++) {
      const int64_t b = n / sequence, t = n % sequence;
      copy_scaled(io.wte + io.tokens[b * (sequence + 1) + t] * dim, 1.0f, io.x + n * dim, dim);
      if (io.wpe) add_scaled(io.wpe + t * dim, 1.0f, io.x + n * dim, dim);
    }
  });
}

// The work is split over columns: a token may occur many times, and its sum must not depend on the
// split.
void embedding_backward(const OpCall& call, Stream* stream) {
  const int64_t sequence = call.attrs->sequence, dim = call.attrs->dim, positions = call.attrs->batch * sequence;
  const op::EmbeddingBackward<> io(call);
  const SameToken lists = same_token(*call.attrs, io.tokens, stream);
  parallel_for(stream, dim, 64, [=](int64_t begin, int64_t end, int thread) {
    const int64_t width = end - begin;
    float* part = scratch(stream, thread, width);
    const float* dx = io.dx + begin;
    for (int64_t n = 0; n < positions; n++) {
      if (!lists.starts[n]) continue;
      const int32_t token = io.tokens[n / sequence * (sequence + 1) + n % sequence];
      add_list(
          n, [=](int64_t i) { return int64_t{lists.next[i]}; }, dx, dim, width, part, io.dwte + token * dim + begin);
    }
    const auto next = [=](int64_t n) { return n + sequence < positions ? n + sequence : -1; };
    for (int64_t t = 0; io.dwpe && t < min(sequence, positions); t++)
      add_list(t, next, dx, dim, width, part, io.dwpe + t * dim + begin);
  });
}

void cross_entropy(const OpCall& call, Stream* stream) {
  const Attrs& a = *call.attrs;
  const int64_t sequence = a.sequence, vocabulary = a.vocabulary, rows = a.batch * a.sequence;
  const float scale = a.scale;
  const op::CrossEntropy<> io(call);  // dlogits may be the buffer of logits
  float* losses = scratch(stream, kShared, rows);
  parallel_for(stream, rows, 4, [=](int64_t begin, int64_t end, int thread) {
    float* space = io.dlogits ? nullptr : scratch(stream, thread, vocabulary);
    for (int64_t n = begin; n < end; n++) {
      const float* x = io.logits + n * vocabulary;
      float* p = io.dlogits ? io.dlogits + n * vocabulary : space;
      const int32_t target = io.tokens[n / sequence * (sequence + 1) + n % sequence + 1];
      const float top = maximum(x, vocabulary), to_target = x[target] - top;
      const float total = exp_row(x, p, vocabulary, 1.0f, top);
      losses[n] = __builtin_logf(total) - to_target;
      if (!io.dlogits) continue;
      const float factor = scale / total;
#pragma omp simd
      for (int64_t v = 0; v < vocabulary; v++) p[v] *= factor;
      p[target] -= scale;
    }
  });
  double loss = 0;
  for (int64_t n = 0; n < rows; n++) loss += losses[n];
  io.loss[0] = (a.accumulate ? io.loss[0] : 0.0f) + static_cast<float>(loss * scale);
}

}  // namespace scmoe::SCMOE_ISA
