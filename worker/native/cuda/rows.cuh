// Routed rows after dispatch (worker/program/ops.ts), in order of local expert, then source rank,
// then slot. Only the device knows how many there are, so a kernel is launched for as many rows as
// the buffer has room for, and blocks beyond the last row end at once.
#pragma once

#include "cuda/device.cuh"

namespace scmoe::cuda {

// The rows that an op works on, counted without gaps: row i of them is row `at(i)` of its buffer. A
// segment is the rows that one source rank sent to one local expert, or those of them that belong
// to the call's chunk. Without segments, the op works on all rows.
struct Rows {
  const int32_t* first = nullptr;  // [segments] the first row of a segment in the buffer
  const int32_t* start = nullptr;  // [segments + 1] the number of rows in all segments before
  int segments = 0;
  int64_t all = 0;  // the number of rows if there are no segments

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

// The segments of the call's chunk. They are in `scratch`, which must have segment_elements(attrs)
// elements.
Rows rows_of_chunk(Stream* stream, const Attrs& attrs, const int32_t* all_counts, int32_t* scratch);
// The same for rows in order of expert, as this rank sends them.
Rows rows_before_dispatch(Stream* stream, const Attrs& attrs, const int32_t* all_counts, int32_t* scratch);

inline int64_t segment_elements(const Attrs& attrs) {
  return 2 * attrs.experts + 1;
}

}  // namespace scmoe::cuda
