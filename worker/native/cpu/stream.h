// A CPU stream as kernels see it. Nothing here is inline: kernel files are compiled for several
// instruction sets, and the linker could keep a copy of a shared inline function with instructions
// that this machine lacks.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend.h"

namespace scmoe {

int stream_threads(Stream* stream);

// Runs task(context, t) for every thread t of the team and returns when all are done.
void stream_run(Stream* stream, void (*task)(void* context, int thread), void* context);

// Memory of one thread, or with thread = kShared of the whole op. It is 64-byte aligned and its
// contents are undefined. Every call returns the same memory, which grows at the first use and
// never in steady state. A thread asks only for its own memory, and for kShared only outside
// stream_run.
inline constexpr int kShared = -1;
void* stream_scratch(Stream* stream, int thread, size_t bytes);

Stream* cpu_stream_create(int num_threads);
void cpu_stream_destroy(Stream* stream);

}  // namespace scmoe
