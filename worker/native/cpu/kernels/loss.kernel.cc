// The two ends of the model that see tokens: embedding and cross entropy. tokens: [B, T + 1], inputs first T columns,
// targets last T.
#include "cpu/vec.h"

namespace scmoe::SCMOE_ISA {

void embedding(const OpCall& call, Stream* stream) {
  const int64_t sequence = call.attrs->sequence, dim = call.attrs->dim;
  const int32_t* tokens = in<int32_t>(call, 0);
  const float *wte = in(call, 1), *wpe = call.num_in > 2 ? in(call, 2) : nullptr;
  float* x = out(call, 0);
  parallel_for(stream, call.attrs->batch * sequence, 16, [=](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; n++) {
      const int64_t b = n / sequence, t = n % sequence;
      copy_scaled(wte + tokens[b * (sequence + 1) + t] * dim, 1.0f, x + n * dim, dim);
      if (wpe) add_scaled(wpe + t * dim, 1.0f, x + n * dim, dim);
    }
  });
}

// Split over columns: a token may occur many times, and its sum must not depend on the split.
void embedding_backward(const OpCall& call, Stream* stream) {
  const int64_t batch = call.attrs->batch, sequence = call.attrs->sequence, dim = call.attrs->dim;
  const int32_t* tokens = in<int32_t>(call, 0);
  const float* dx = in(call, 1);
  float *dwte = out(call, 0), *dwpe = call.num_out > 1 ? out(call, 1) : nullptr;
  parallel_for(stream, dim, 64, [=](int64_t begin, int64_t end, int) {
    for (int64_t b = 0; b < batch; b++) {
      for (int64_t t = 0; t < sequence; t++) {
        const float* d = dx + (b * sequence + t) * dim + begin;
        add_scaled(d, 1.0f, dwte + tokens[b * (sequence + 1) + t] * dim + begin, end - begin);
        if (dwpe) add_scaled(d, 1.0f, dwpe + t * dim + begin, end - begin);
      }
    }
  });
}

void cross_entropy(const OpCall& call, Stream* stream) {
  const Attrs& a = *call.attrs;
  const int64_t sequence = a.sequence, vocabulary = a.vocabulary, rows = a.batch * a.sequence;
  const float *logits = in(call, 0), scale = a.scale;
  const int32_t* tokens = in<int32_t>(call, 1);
  float* dlogits = call.num_out > 1 ? out(call, 1) : nullptr;  // may be logits
  float* losses = scratch(stream, kShared, rows);
  parallel_for(stream, rows, 4, [=](int64_t begin, int64_t end, int thread) {
    float* space = dlogits ? nullptr : scratch(stream, thread, vocabulary);
    for (int64_t n = begin; n < end; n++) {
      const float* x = logits + n * vocabulary;
      float* p = dlogits ? dlogits + n * vocabulary : space;
      const int32_t target = tokens[n / sequence * (sequence + 1) + n % sequence + 1];
      const float top = maximum(x, vocabulary), to_target = x[target] - top;
      const float total = exp_row(x, p, vocabulary, 1.0f, top);
      losses[n] = __builtin_logf(total) - to_target;
      if (!dlogits) continue;
      const float factor = scale / total;
#pragma omp simd
      for (int64_t v = 0; v < vocabulary; v++) p[v] *= factor;
      p[target] -= scale;
    }
  });
  double loss = 0;
  for (int64_t n = 0; n < rows; n++) loss += losses[n];
  out(call, 0)[0] = (a.accumulate ? out(call, 0)[0] : 0.0f) + static_cast<float>(loss * scale);
}

}  // namespace scmoe::SCMOE_ISA
