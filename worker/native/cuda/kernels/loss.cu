// Cross entropy, and the balance and z losses of the router.
#include "cuda/ops.cuh"
#include "loss.cuh"

namespace scmoe::cuda {
namespace {

constexpr int kThreads = 256;

template <class T>
struct CrossEntropy {
  T* dlogits;             // [tokens, vocabulary]; may be the buffer of logits, may be null
  float* loss;            // [tokens]
  const T* logits;        // [tokens, vocabulary]
  const int32_t* tokens;  // [batch, sequence + 1]
  int64_t sequence, vocabulary;
  float scale;
};

// A block for each token.
template <class T>
__global__ void cross_entropy_kernel(CrossEntropy<T> p) {
  const int64_t n = blockIdx.x;
  const T* x = p.logits + n * p.vocabulary;
  const int32_t target = p.tokens[n / p.sequence * (p.sequence + 1) + n % p.sequence + 1];
  float top = -INFINITY, total = 0;
  for (int64_t v = threadIdx.x; v < p.vocabulary; v += kThreads) top = greatest(top, load(x[v]));
  top = block_max<kThreads>(top);
  for (int64_t v = threadIdx.x; v < p.vocabulary; v += kThreads) total += expf(load(x[v]) - top);
  total = block_sum<kThreads>(total);
  if (threadIdx.x == 0) p.loss[n] = top + logf(total) - load(x[target]);
  if (!p.dlogits) return;
  __syncthreads();  // the target's logit must be read before it may be overwritten
  const float share = 1 / total;
  for (int64_t v = threadIdx.x; v < p.vocabulary; v += kThreads)
    p.dlogits[n * p.vocabulary + v] =
        rounded<T>(p.scale * (expf(load(x[v]) - top) * share - (v == target ? 1.0f : 0.0f)));
}

// share[e] = f_e. A thread for each expert.
__global__ void load_share_kernel(float* share, const int32_t* all_counts, int64_t world, int64_t experts,
                                  double choices) {
  const int64_t e = global_thread();
  if (e >= experts) return;
  int64_t sum = 0;
  for (int64_t q = 0; q < world; q++) sum += all_counts[q * experts + e];
  share[e] = static_cast<float>(static_cast<double>(sum) / choices);
}

struct Balance {
  const float* probs;  // [rows, experts]
  const float* share;  // [experts]
  int64_t experts;
  __device__ double operator()(int64_t i) const { return static_cast<double>(share[i % experts]) * probs[i]; }
};
struct Square {
  const float* x;
  __device__ double operator()(int64_t i) const { return static_cast<double>(x[i]) * x[i]; }
};
struct Plain {
  const float* x;
  __device__ double operator()(int64_t i) const { return x[i]; }
};

}  // namespace

__global__ void finish_loss(const double* partials, int64_t count, Loss loss) {
  double sum = 0;
  for (int64_t i = 0; i < count; i++) sum += partials[i];
  *loss.value = static_cast<float>((loss.accumulate ? *loss.value : 0) + loss.scale * sum);
}

void load_share(Stream* stream, const Attrs& a, const int32_t* all_counts, float* share) {
  const double choices = static_cast<double>(a.worldSize * a.rows * a.topK);
  launch(stream, grid_of(a.experts), load_share_kernel, share, all_counts, a.worldSize, a.experts, choices);
}

void cross_entropy(const OpCall& call, Stream* stream) {
  with_buffers<op::CrossEntropy>(call, [&]<class T>(const op::CrossEntropy<float, T>& io) {
    const Attrs& a = *call.attrs;
    const int64_t tokens = a.batch * a.sequence;
    double* partials = scratch_of<double>(stream, kLossBlocks + tokens);
    float* losses = reinterpret_cast<float*>(partials + kLossBlocks);
    const CrossEntropy<T> p{.dlogits = io.dlogits,
                            .loss = losses,
                            .logits = io.logits,
                            .tokens = io.tokens,
                            .sequence = a.sequence,
                            .vocabulary = a.vocabulary,
                            .scale = a.scale};
    launch(stream, per_row(tokens, kThreads), cross_entropy_kernel<T>, p);
    sum_loss(stream, Plain{losses}, tokens, {io.loss, a.scale, a.accumulate != 0}, partials);
  });
}

void aux_loss(const OpCall& call, Stream* stream) {
  const Attrs& a = *call.attrs;
  const op::AuxLoss<> io(call);
  double* partials = scratch_of<double>(stream, kLossBlocks + a.experts);
  float* share = reinterpret_cast<float*>(partials + kLossBlocks);
  load_share(stream, a, io.allCounts, share);
  const double tokens = static_cast<double>(greatest<int64_t>(1, a.worldSize * a.rows));
  const double mean = static_cast<double>(a.experts) / tokens;
  sum_loss(stream, Balance{.probs = io.probs, .share = share, .experts = a.experts}, a.rows * a.experts,
           {io.loss, a.scale * mean, a.accumulate != 0}, partials);
}

void z_loss(const OpCall& call, Stream* stream) {
  const Attrs& a = *call.attrs;
  const op::ZLoss<> io(call);
  double* partials = scratch_of<double>(stream, kLossBlocks);
  sum_loss(stream, Square{io.lse}, a.rows, {io.loss, a.scale, a.accumulate != 0}, partials);
}

}  // namespace scmoe::cuda
