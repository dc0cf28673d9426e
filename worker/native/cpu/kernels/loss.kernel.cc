// The ops at the two ends of the model, which read tokens: embedding and cross entropy. tokens: [B,
// T + 1], of which the first T columns are the inputs and the last T the targets.
#include "cpu/vec.h"

namespace scmoe::SCMOE_ISA {

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
  const int64_t batch = call.attrs->batch, sequence = call.attrs->sequence, dim = call.attrs->dim;
  const op::EmbeddingBackward<> io(call);
  parallel_for(stream, dim, 64, [=](int64_t begin, int64_t end, int) {
    for (int64_t b = 0; b < batch; b++) {
      for (int64_t t = 0; t < sequence; t++) {
        const float* d = io.dx + (b * sequence + t) * dim + begin;
        add_scaled(d, 1.0f, io.dwte + io.tokens[b * (sequence + 1) + t] * dim + begin, end - begin);
        if (io.dwpe) add_scaled(d, 1.0f, io.dwpe + t * dim + begin, end - begin);
      }
    }
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
