// The header that every kernel file includes. A kernel file is compiled once for each instruction
// set, with SCMOE_ISA as the namespace of everything in it. It uses no inline function or template
// from outside that namespace unless it is always inlined (see stream.h). tests/native checks the
// symbols that kernel files define.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend.h"
#include "cpu/stream.h"
#include "ops.generated.h"

namespace scmoe::SCMOE_ISA {

#define SCMOE_DECLARE(name) void name(const OpCall& call, Stream* stream);
SCMOE_COMPUTE_OPS(SCMOE_DECLARE)
#undef SCMOE_DECLARE

inline int64_t min(int64_t a, int64_t b) {
  return a < b ? a : b;
}
inline int64_t max(int64_t a, int64_t b) {
  return a > b ? a : b;
}
inline int64_t round_up(int64_t n, int64_t step) {
  return (n + step - 1) / step * step;
}

inline float* scratch(Stream* stream, int thread, int64_t elements) {
  return static_cast<float*>(stream_scratch(stream, thread, static_cast<size_t>(elements) * sizeof(float)));
}

template <class Body>
struct Split {
  const Body* body;
  int64_t n, grain, blocks, parts;
};

// There is one copy of the body for all callers. If it were inlined twice, the compiler could
// contract it into multiply-adds in two ways, and results would differ.
template <class Body>
__attribute__((noinline)) void run_part(void* context, int thread) {
  const Split<Body>& s = *static_cast<const Split<Body>*>(context);
  if (thread >= s.parts) return;
  const int64_t begin = s.blocks * thread / s.parts * s.grain;
  const int64_t end = min(s.n, s.blocks * (thread + 1) / s.parts * s.grain);
  (*s.body)(begin, end, thread);
}

// Calls body(begin, end, thread) with one contiguous range of [0, n) for each thread, cut at
// multiples of `grain`. Every op is written so that its result does not depend on the cuts.
template <class Body>
inline void parallel_for(Stream* stream, int64_t n, int64_t grain, const Body& body) {
  if (n <= 0) return;
  const int64_t blocks = (n + grain - 1) / grain;
  Split<Body> split{&body, n, grain, blocks, min(blocks, stream_threads(stream))};
  if (split.parts == 1) return run_part<Body>(&split, 0);
  stream_run(stream, run_part<Body>, &split);
}

}  // namespace scmoe::SCMOE_ISA
