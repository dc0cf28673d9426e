// The router: scores, softmax, choice, and the places of choices in token order.
#include <stdexcept>
#include <string>

#include "cuda/columns.cuh"
#include "cuda/ops.cuh"
#include "cuda/tile.cuh"
#include "loss.cuh"

namespace scmoe::cuda {
namespace {

constexpr int kPlaces = 256;  // choices for which one block finds the places

struct Choice {
  float* probs;          // [rows, experts]; holds the scores before
  float *weight, *lse;   // [rows, k]; [rows] or null
  int32_t* expert;       // [rows, k]
  const int32_t* taken;  // [rows] or null
  int64_t rows, experts, k;
};

// The index with the highest score, and of equal ones the lowest. All lanes get it.
__device__ int best_of_warp(float score, int index) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, score, distance);
    const int at = __shfl_xor_sync(kAllLanes, index, distance);
    if (other > score || (other == score && at < index)) score = other, index = at;
  }
  return index;
}

// A warp for each token.
__global__ void choose_kernel(Choice p) {
  const int64_t n = global_warp(), lane = threadIdx.x % kWarp;
  if (n >= p.rows) return;
  float* probs = p.probs + n * p.experts;
  float top = -INFINITY, total = 0;
  for (int64_t e = lane; e < p.experts; e += kWarp) top = greatest(top, probs[e]);
  top = warp_max(top);
  for (int64_t e = lane; e < p.experts; e += kWarp) total += expf(probs[e] - top);
  total = warp_sum(total);
  if (p.lse && lane == 0) p.lse[n] = top + logf(total);

  // The logits choose: far below the largest, all probabilities are zero.
  const int taken = p.taken ? p.taken[n] : -1;
  float logit[2] = {0, 0};
  int pick[2] = {-1, -1};
#pragma unroll
  for (int i = 0; i < 2; i++) {
    if (i >= p.k) break;
    float score = -INFINITY;
    int index = static_cast<int>(p.experts) - 1;  // stays if no score is a number
    for (int64_t e = lane; e < p.experts; e += kWarp) {
      const bool open = e != taken && e != pick[0];
      if (open && probs[e] > score) score = probs[e], index = static_cast<int>(e);
    }
    pick[i] = best_of_warp(score, index);
    logit[i] = __shfl_sync(kAllLanes, lane == pick[i] % kWarp ? probs[pick[i]] : 0.0f, pick[i] % kWarp);
  }
  for (int64_t e = lane; e < p.experts; e += kWarp) probs[e] = expf(probs[e] - top) / total;
  if (lane >= p.k) return;
  p.expert[n * p.k + lane] = lane == 0 ? pick[0] : pick[1];
  // The softmax of the chosen logits, or for one choice its share of the softmax over all.
  const float second = expf(logit[1] - logit[0]);
  const float chosen = (lane == 0 ? 1 : second) / (1 + second);
  p.weight[n * p.k + lane] = p.k > 1 ? chosen : expf(logit[0] - top) / total;
}

// The position of choice c in the order in which places are given: i = 0 of all tokens, then i = 1.
__device__ int64_t choice_at(int64_t c, int64_t rows, int64_t k) {
  return c % rows * k + c / rows;
}

// tallies[block, e] = choices of e among a block's kPlaces
__global__ void tally_kernel(int32_t* tallies, const int32_t* expert, int64_t rows, int64_t k, int64_t experts) {
  __shared__ int32_t here[kPlaces];
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kPlaces + threadIdx.x;
  here[threadIdx.x] = c < rows * k ? expert[choice_at(c, rows, k)] : -1;
  __syncthreads();
  for (int64_t e = threadIdx.x; e < experts; e += kPlaces) {
    int32_t count = 0;
    for (int i = 0; i < kPlaces; i++) count += here[i] == e;
    tallies[blockIdx.x * experts + e] = count;
  }
}

// Replaces each tally by the sum over the blocks before, and writes the sum over all blocks to
// counts. A thread for each expert.
__global__ void count_kernel(int32_t* tallies, int32_t* counts, int64_t blocks, int64_t experts) {
  const int64_t e = global_thread();
  if (e >= experts) return;
  int32_t before = 0;
  for (int64_t b = 0; b < blocks; b++) {
    const int32_t here = tallies[b * experts + e];
    tallies[b * experts + e] = before;
    before += here;
  }
  counts[e] = before;
}

struct Places {
  int32_t* slot;                   // [rows, k]
  const int32_t *expert, *before;  // [rows, k]; [blocks, experts]
  int64_t rows, k, experts, capacity;
};

__global__ void place_kernel(Places p) {
  __shared__ int32_t here[kPlaces];
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kPlaces + threadIdx.x;
  const bool is = c < p.rows * p.k;
  const int64_t choice = choice_at(is ? c : 0, p.rows, p.k);
  const int32_t mine = p.expert[choice];
  here[threadIdx.x] = is ? mine : -1;
  __syncthreads();
  if (!is) return;
  int32_t place = p.before[blockIdx.x * p.experts + mine];
  for (unsigned i = 0; i < threadIdx.x; i++) place += here[i] == mine;
  p.slot[choice] = place < p.capacity ? place : -1;
}

struct Backward {
  float* dlogits;                    // [rows, experts]
  const float *dweight, *weight;     // [rows, k]
  const float *probs, *lse, *share;  // [rows, experts]; [rows] or null; [experts]
  const int32_t *expert, *slot;      // [rows, k]
  int64_t rows, experts, k;
  float balance, z;  // factors of a share and of a log-sum-exp

  __device__ float of_weight(int64_t choice) const { return slot[choice] < 0 ? 0 : dweight[choice]; }
  // d loss / d probs[e] of a token. A single choice has its probability as weight.
  __device__ float of_prob(int64_t n, int64_t e) const {
    return balance * share[e] + (k == 1 && expert[n] == e ? of_weight(n) : 0);
  }
  // d loss / d logit e by way of two weights, which are the softmax of the chosen logits.
  __device__ float of_chosen(int64_t n, int64_t e) const {
    if (k == 1) return 0;
    float mean = 0, slope = 0;
    for (int64_t c = n * k; c < n * k + k; c++) mean += weight[c] * of_weight(c);
    for (int64_t c = n * k; c < n * k + k; c++)
      if (expert[c] == e) slope += weight[c] * (of_weight(c) - mean);
    return slope;
  }
};

// A warp for each token.
__global__ void dlogits_kernel(Backward p) {
  const int64_t n = global_warp(), lane = threadIdx.x % kWarp;
  if (n >= p.rows) return;
  float inner = 0;
  for (int64_t e = lane; e < p.experts; e += kWarp) inner += p.probs[n * p.experts + e] * p.of_prob(n, e);
  inner = warp_sum(inner);
  const float of_lse = p.lse ? p.z * p.lse[n] : 0;
  for (int64_t e = lane; e < p.experts; e += kWarp)
    p.dlogits[n * p.experts + e] = p.probs[n * p.experts + e] * (p.of_prob(n, e) - inner + of_lse) + p.of_chosen(n, e);
}

// dw[e, j] of a slice of tokens: partials[slice, experts, dim]
template <class T>
struct Slice {
  float* partials;
  const float* dlogits;                // [rows, experts]
  const T* x;                          // [rows, dim]
  int64_t rows, experts, dim, length;  // length: rows of a slice
};

template <class T>
__global__ void dw_kernel(Slice<T> p) {
  const int64_t m0 = static_cast<int64_t>(blockIdx.y) * kTile, n0 = static_cast<int64_t>(blockIdx.x) * kTile;
  const int64_t first = blockIdx.z * p.length, count = least(p.length, p.rows - first);
  float sum[kSide][kSide] = {};
  multiply_tile(sum, Left<float, false>{{p.dlogits + first * p.experts, p.experts, m0, p.experts}},
                Right<T, false>{{p.x + first * p.dim, p.dim, n0, p.dim}}, count);
  each_element(sum, [&](int m, int n, float value) {
    if (m0 + m < p.experts && n0 + n < p.dim) p.partials[(blockIdx.z * p.experts + m0 + m) * p.dim + n0 + n] = value;
  });
}

}  // namespace

void router(const OpCall& call, Stream* stream) {
  const Attrs& a = *call.attrs;
  if (a.topK > 2) {
    throw std::runtime_error("attribute topK is " + std::to_string(a.topK) +
                             ", but the CUDA backend chooses 1 or 2 experts for a token");
  }
  with_buffers<op::Router>(call, [&]<class T>(const op::Router<float, T>& io) {
    multiply<true, true>(
        stream, Product<T, float, float>{
                    .c = io.probs, .a = io.x, .b = io.w, .rows = a.rows, .columns = a.experts, .depth = a.dim});
    const Choice choice{.probs = io.probs,
                        .weight = io.weight,
                        .lse = io.lse,
                        .expert = io.expert,
                        .taken = io.taken,
                        .rows = a.rows,
                        .experts = a.experts,
                        .k = a.topK};
    launch(stream, warp_per_row(a.rows), choose_kernel, choice);
    const int64_t blocks = ceil_div(a.rows * a.topK, kPlaces);
    int32_t* const tallies = scratch_of<int32_t>(stream, blocks * a.experts);
    const Grid grid{dim3(static_cast<unsigned>(blocks)), dim3(kPlaces)};
    launch(stream, grid, tally_kernel, tallies, io.expert, a.rows, a.topK, a.experts);
    launch(stream, grid_of(a.experts), count_kernel, tallies, io.counts, blocks, a.experts);
    launch(stream, grid, place_kernel,
           Places{.slot = io.slot,
                  .expert = io.expert,
                  .before = tallies,
                  .rows = a.rows,
                  .k = a.topK,
                  .experts = a.experts,
                  .capacity = a.capacity});
  });
}

void router_backward(const OpCall& call, Stream* stream) {
  const Attrs& a = *call.attrs;
  const int64_t length = greatest<int64_t>(256, ceil_div(a.rows, 32)), slices = ceil_div(a.rows, length);
  const int64_t weights = a.experts * a.dim;
  float* share = scratch_of<float>(stream, a.experts + a.rows * a.experts + slices * weights);
  float *dlogits = share + a.experts, *partials = dlogits + a.rows * a.experts;
  const float tokens = static_cast<float>(a.worldSize * a.rows);
  with_buffers<op::RouterBackward>(call, [&]<class T>(const op::RouterBackward<float, T>& io) {
    load_share(stream, a, io.allCounts, share);
    launch(stream, warp_per_row(a.rows), dlogits_kernel,
           Backward{.dlogits = dlogits,
                    .dweight = io.dweight,
                    .weight = io.weight,
                    .probs = io.probs,
                    .lse = io.lse,
                    .share = share,
                    .expert = io.expert,
                    .slot = io.slot,
                    .rows = a.rows,
                    .experts = a.experts,
                    .k = a.topK,
                    .balance = a.auxCoefficient * static_cast<float>(a.experts) / tokens,
                    .z = 2 * a.zCoefficient / tokens});
    multiply<true, false>(stream, Product<float, float, T>{.c = io.dx,
                                                           .a = dlogits,
                                                           .b = io.w,
                                                           .rows = a.rows,
                                                           .columns = a.dim,
                                                           .depth = a.experts,
                                                           .accumulate = a.accumulate != 0});
    const dim3 blocks(static_cast<unsigned>(ceil_div(a.dim, kTile)), static_cast<unsigned>(ceil_div(a.experts, kTile)),
                      static_cast<unsigned>(slices));
    launch(stream, {blocks, dim3(kTileThreads)}, dw_kernel<T>,
           Slice<T>{.partials = partials,
                    .dlogits = dlogits,
                    .x = io.x,
                    .rows = a.rows,
                    .experts = a.experts,
                    .dim = a.dim,
                    .length = length});
    launch(stream, grid_of(weights), add_partials, static_cast<const float*>(partials), slices, weights, io.dw);
  });
}

}  // namespace scmoe::cuda
