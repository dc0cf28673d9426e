// Routed rows after dispatch (worker/program/ops.ts): by local expert, then source rank, then slot. How many there are
// is known on the device alone: a kernel is launched for as many as the buffer has room for, and ends early beyond.
#pragma once

#include "cuda/device.cuh"

namespace scmoe::cuda {

// The rows an op works on, counted without gaps: row i of them lies at `at(i)` in its buffer. A segment is what one
// source rank sent to one local expert, or its part of that in the call's chunk. Without segments: all rows.
struct Rows {
  const int32_t* first = nullptr;  // [segments] where a segment's rows begin in the buffer
  const int32_t* start = nullptr;  // [segments + 1] how many rows segments before have
  int segments = 0;
  int64_t all = 0;  // rows where there are no segments

  __device__ int64_t count() const { return segments > 0 ? start[segments] : all; }
  __device__ int64_t at(int64_t i) const {
    if (segments == 0) return i;
    int low = 0, high = segments;  // start[low] <= i < start[high]
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (start[middle] <= i ? low : high) = middle;
    }
    return first[low] + (i - start[low]);
  }
};

// Segments of the call's chunk, in the scratch given: segment_elements(attrs) of it are used.
Rows rows_of_chunk(Stream* stream, const Attrs& attrs, const int32_t* all_counts, int32_t* scratch);
// The same where rows lie by expert, as this rank sends them.
Rows rows_before_dispatch(Stream* stream, const Attrs& attrs, const int32_t* all_counts, int32_t* scratch);

inline int64_t segment_elements(const Attrs& attrs) {
  return 2 * attrs.experts + 1;
}

}  // namespace scmoe::cuda
