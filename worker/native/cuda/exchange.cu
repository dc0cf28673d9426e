// Moves routed rows to and from the buffers of an exchange whose size does not depend on counts
// (device.h).
#include "device.cuh"
#include "exchange.h"
#include "rows.cuh"

namespace scmoe::cuda {
namespace {

struct Places {
  int64_t slots, width;  // slots of a segment, elements of a row
  // Source ranks and local experts of the segments; 1 and 1 keep their order
  int64_t ranks, experts;
  bool pack;

  // Segments are in order of local expert, then source rank. In the exchange, the part of each peer
  // has all its experts.
  __device__ int64_t of(int64_t segment) const { return segment % ranks * experts + segment / ranks; }
};

// A block for each place.
template <class T>
__global__ void move_kernel(Rows rows, Places places, const T* from, T* to) {
  const int64_t segment = blockIdx.x / places.slots, slot = blockIdx.x % places.slots;
  if (slot >= rows.start[segment + 1] - rows.start[segment]) return;
  const int64_t place = places.of(segment) * places.slots + slot, row = rows.first[segment] + slot;
  const T* const source = from + (places.pack ? row : place) * places.width;
  T* const target = to + (places.pack ? place : row) * places.width;
  for (int64_t i = threadIdx.x; i < places.width; i += blockDim.x) target[i] = source[i];
}

template <class T>
void move(const PaddedRows& x, const Rows& rows, Places places, Stream* stream) {
  places.width = x.row_bytes / int64_t(sizeof(T));
  const void* const from = x.pack ? x.rows : x.padded;
  void* const to = x.pack ? x.padded : x.rows;
  launch(stream, per_row(rows.segments * x.slots), move_kernel<T>, rows, places, static_cast<const T*>(from),
         static_cast<T*>(to));
}

}  // namespace

void move_padded(const PaddedRows& x, Stream* stream) {
  const Attrs& a = *x.attrs;
  const Rows rows = x.by_expert ? rows_before_dispatch(stream, a, x.all_counts, x.scratch)
                                : rows_of_chunk(stream, a, x.all_counts, x.scratch);
  const int64_t size = a.expertParallelSize;
  const Places places{x.slots, 0, x.by_expert ? 1 : size, x.by_expert ? 1 : a.experts / size, x.pack};
  if (x.row_bytes % 16 == 0) return move<Pack<float, 4>>(x, rows, places, stream);
  if (x.row_bytes % 4 == 0) return move<float>(x, rows, places, stream);
  move<uint16_t>(x, rows, places, stream);
}

}  // namespace scmoe::cuda
