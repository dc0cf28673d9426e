// Token and position embeddings.
#include "cuda/ops.cuh"

namespace scmoe::cuda {
namespace {

constexpr int kThreads = 256;

struct Sum {
  __device__ float operator()(float token) const { return token; }
  __device__ float operator()(float token, float position) const { return token + position; }
};

struct Shape {
  int64_t batch, sequence, dim;
  __device__ int64_t tokens() const { return batch * sequence; }
  __device__ int32_t token(const int32_t* all, int64_t n) const {
    return all[n / sequence * (sequence + 1) + n % sequence];
  }
};

template <class T>
__global__ void embedding_kernel(T* x, const int32_t* tokens, const float* wte, const float* wpe, Shape s) {
  const int64_t n = blockIdx.x;
  const float* token = wte + s.token(tokens, n) * s.dim;
  if (wpe) {
    map_row(s.dim, Sum{}, x + n * s.dim, token, wpe + n % s.sequence * s.dim);
  } else {
    map_row(s.dim, Sum{}, x + n * s.dim, token);
  }
}

// The block of a token's first position adds up the gradients at all positions of that token, in
// order, for kThreads columns.
template <class T>
__global__ void token_gradient_kernel(float* dwte, const int32_t* tokens, const T* dx, Shape s) {
  __shared__ unsigned here[kThreads / kWarp];
  const int64_t first = blockIdx.x, count = s.tokens();
  const int32_t token = s.token(tokens, first);
  const int64_t j = static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x;
  LongSum sum;
  for (int64_t base = 0; base < count; base += kThreads) {
    const int64_t n = base + threadIdx.x;
    const unsigned found = __ballot_sync(kAllLanes, n < count && s.token(tokens, n) == token);
    __syncthreads();
    if (threadIdx.x % kWarp == 0) here[threadIdx.x / kWarp] = found;
    __syncthreads();
    for (int w = 0; w < kThreads / kWarp; w++) {
      for (unsigned left = here[w]; left != 0; left &= left - 1) {
        const int64_t at = base + w * kWarp + __ffs(left) - 1;
        if (at < first) return;  // the token belongs to an earlier block
        if (j < s.dim) sum.add(load(dx[at * s.dim + j]));
      }
    }
  }
  if (j < s.dim) dwte[token * s.dim + j] += sum.value();
}

template <class T>
__global__ void position_gradient_kernel(float* dwpe, const T* dx, Shape s) {
  const int64_t i = global_thread(), size = s.sequence * s.dim;
  if (i >= size) return;
  LongSum sum;
  for (int64_t b = 0; b < s.batch; b++) sum.add(load(dx[b * size + i]));
  dwpe[i] += sum.value();
}

}  // namespace

void embedding(const OpCall& call, Stream* stream) {
  with_buffers<op::Embedding>(call, [&]<class T>(const op::Embedding<float, T>& io) {
    const Shape s{call.attrs->batch, call.attrs->sequence, call.attrs->dim};
    launch(stream, per_row(s.batch * s.sequence), embedding_kernel<T>, io.x, io.tokens, io.wte, io.wpe, s);
  });
}

void embedding_backward(const OpCall& call, Stream* stream) {
  with_buffers<op::EmbeddingBackward>(call, [&]<class T>(const op::EmbeddingBackward<float, T>& io) {
    const Shape s{call.attrs->batch, call.attrs->sequence, call.attrs->dim};
    const dim3 blocks(static_cast<unsigned>(s.batch * s.sequence), static_cast<unsigned>(ceil_div(s.dim, kThreads)));
    launch(stream, {blocks, dim3(kThreads)}, token_gradient_kernel<T>, io.dwte, io.tokens, io.dx, s);
    if (io.dwpe) launch(stream, grid_of(s.sequence * s.dim), position_gradient_kernel<T>, io.dwpe, io.dx, s);
  });
}

}  // namespace scmoe::cuda
