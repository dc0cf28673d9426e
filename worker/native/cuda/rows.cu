#include "chunk.h"
#include "rows.cuh"

namespace scmoe::cuda {
namespace {

struct Group {
  int64_t experts, capacity, first_expert, local_experts, first_rank, num_ranks, chunk, chunks;
};

__device__ int warp_scan(int x) {  // sum of the lanes up to this one
  for (unsigned distance = 1; distance < kWarp; distance *= 2) {
    const int below = __shfl_up_sync(kAllLanes, x, distance);
    if (threadIdx.x % kWarp >= distance) x += below;
  }
  return x;
}

// Runs in one warp.
__global__ void segments_kernel(const int32_t* all_counts, Group group, int32_t* first, int32_t* start) {
  const int64_t segments = group.local_experts * group.num_ranks;
  int row = 0, counted = 0;  // rows of the segments before: all, and those of the chunk
  for (int64_t base = 0; base < segments; base += kWarp) {
    const int64_t s = base + threadIdx.x;
    int kept = 0;
    int64_t begin = 0, end = 0;  // slots of the chunk
    if (s < segments) {
      const int64_t rank = group.first_rank + s % group.num_ranks, expert = group.first_expert + s / group.num_ranks;
      kept = static_cast<int>(least<int64_t>(all_counts[rank * group.experts + expert], group.capacity));
      begin = kept * group.chunk / group.chunks;  // chunk.h
      end = kept * (group.chunk + 1) / group.chunks;
    }
    const int count = static_cast<int>(end - begin);
    const int rows_to_here = warp_scan(kept), counted_to_here = warp_scan(count);
    if (s < segments) {
      first[s] = row + rows_to_here - kept + static_cast<int>(begin);
      start[s] = counted + counted_to_here - count;
    }
    row += __shfl_sync(kAllLanes, rows_to_here, kWarp - 1);
    counted += __shfl_sync(kAllLanes, counted_to_here, kWarp - 1);
  }
  if (threadIdx.x == 0) start[segments] = counted;
}

// There are as many segments as experts in both orders of rows.
Rows segments_of(Stream* stream, const Group& group, const int32_t* all_counts, int32_t* scratch) {
  int32_t* first = scratch + group.experts + 1;
  launch(stream, {dim3(1), dim3(kWarp)}, segments_kernel, all_counts, group, first, scratch);
  return {first, scratch, static_cast<int>(group.experts), 0};
}

}  // namespace

Rows rows_of_chunk(Stream* stream, const Attrs& a, const int32_t* all_counts, int32_t* scratch) {
  const int64_t size = a.expertParallelSize, local = a.experts / size;
  const Group group{a.experts, a.capacity, a.rank % size * local, local, a.rank / size * size, size, a.chunk, a.chunks};
  return segments_of(stream, group, all_counts, scratch);
}

Rows rows_before_dispatch(Stream* stream, const Attrs& a, const int32_t* all_counts, int32_t* scratch) {
  return segments_of(stream, {a.experts, a.capacity, 0, a.experts, a.rank, 1, a.chunk, a.chunks}, all_counts, scratch);
}

}  // namespace scmoe::cuda
